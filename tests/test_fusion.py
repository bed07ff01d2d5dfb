"""Is a trial in a group the same as the trial alone?"""

import dataclasses

import pytest
import torch
from conftest import VARIANTS, mlp, picture_data, residual_convnet, small_data
from torch import nn
from torchmetrics import MeanAbsoluteError

from lightning_tricks import InMemoryData, Split, Task, Tricks, train
from lightning_tricks.fusion import rows
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial import callback
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Interrupted
from lightning_tricks.tricks.optimizers.lion import Lion


@pytest.fixture
def doubles():
    """Let everything be float64, so that two ways differ only by the order of sums."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pictures(*, numbers=True):
    """Return small pictures, as numbers or as bytes."""
    data = picture_data()
    for name, (inputs, targets) in data.splits.items():
        data.splits[name] = Split(inputs.double() / 255 if numbers else inputs, targets)
    return data


def together(task, recipes, seeds, **options):
    """Train recipes as a group; return their results, and why they were not fused."""
    results = {}
    runner = Runner(task, **options)
    pairs = zip(recipes, seeds, strict=True)
    jobs = [Job(number, recipe, seed) for number, (recipe, seed) in enumerate(pairs)]
    runner.train(jobs, lambda *unused: False, lambda job, got: results.update({job.number: got}))
    return [results[number] for number in range(len(recipes))], runner.refusals.of(recipes[0])


def assert_same(mine, alone):
    assert (mine.state, len(mine.epochs)) == (alone.state, len(alone.epochs)), mine.traceback
    for one, other in zip(mine.epochs, alone.epochs, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6, abs=1e-9)
        assert one.score == pytest.approx(other.score, rel=1e-6)
    assert mine.weights.keys() == alone.weights.keys()
    for name, tensor in alone.weights.items():
        torch.testing.assert_close(mine.weights[name], tensor, rtol=1e-5, atol=1e-9, msg=name)


@pytest.mark.usefixtures("doubles")
@pytest.mark.filterwarnings("ignore:'zero_gamma' changes no branch")
@pytest.mark.parametrize(("stage", "kind"), VARIANTS)
def test_every_variant_is_the_same_in_a_group_as_alone(stage, kind):
    data = pictures(numbers=stage != "augmentation")
    long = stage in ("schedule", "averaging", "stopping")  # long enough for late effects
    task = Task("pictures", data, lambda tricks: residual_convnet(), epochs=17 if long else 4)
    # Before a norm, a bias has no gradient but rounding, which these would take for one.
    norm = "none" if kind in ("adagrad", "lion", "normalized_sgd") else "batch"
    tricks = Tricks(**{"dropout": {"kind": "dropout"}, "normalization": norm, stage: {"kind": kind}})
    seeds = (3, 4)
    mine, refusal = together(task, [tricks] * len(seeds), seeds)
    assert not refusal
    for seed, result in zip(seeds, mine, strict=True):
        assert_same(result, train(task, tricks, seed))


FREE = {
    "initialization": ("he_normal", "orthogonal", "glorot_uniform"),
    "smoothing": ("none", "label_smoothing", "none"),
    "weight_decay": ("none", "l2", "l1"),
    "optimizer": ("momentum", "adam", "rmsprop"),
    "clipping": ("norm", "value", "unit"),
    "schedule": ("cosine", "plateau", "step"),
    "averaging": ("none", "ema", "swa"),
    "mixing": ("mixup", "none", "none"),
    "stopping": ("none", "patience", "none"),
}
"""For stages that may differ in a group, the kinds of three members."""


@pytest.mark.usefixtures("doubles")
def test_members_of_other_kinds_and_numbers_do_not_disturb_each_other():
    recipes = [
        Tricks(
            **{stage: {"kind": kinds[place]} for stage, kinds in FREE.items()},
            dropout={"kind": "dropout", "p": 0.1 + 0.1 * place},
        )
        for place in range(3)
    ]
    task = Task("pictures", pictures(), lambda tricks: residual_convnet(), epochs=8)
    mine, refusal = together(task, recipes, (5, 6, 7))
    assert not refusal
    for seed, recipe, result in zip((5, 6, 7), recipes, mine, strict=True):
        assert_same(result, train(task, recipe, seed))
    assert len(mine[1].epochs) < 8  # it stopped by itself, and the others continued


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "lion"])
def test_rows_of_one_formula_step_together(kind, monkeypatch):
    """Learning rates, decays and hyperparameters differ; the network fits the cache many times."""
    stepped, step = [], rows.Rows.step
    monkeypatch.setattr(rows.Rows, "step", lambda self: stepped.append(self) or step(self))
    options = [{"kind": kind}, {"kind": kind, "lr": 0.01}]
    decays = [{"kind": "l2", "norms_and_biases": True}, {"kind": "decoupled", "strength": 0.5}]
    recipes = [
        Tricks(optimizer=one, weight_decay=other, normalization="none")
        for one, other in zip(options, decays, strict=True)
    ]
    task = Task("small", small_data(), lambda tricks: mlp(), epochs=6)
    mine, _ = together(task, recipes, (1, 2))
    assert {len(one.optimizers) for one in stepped} == {2}
    for seed, recipe, result in zip((1, 2), recipes, mine, strict=True):
        assert_same(result, train(task, recipe, seed))


def test_a_member_that_diverges_is_told_as_alone_and_touches_no_other():
    task = Task("small", small_data(), lambda tricks: mlp(), epochs=4)
    recipes = [Tricks(), Tricks(optimizer={"kind": "sgd", "lr": 1e30}, normalization="batch")]
    recipes[1] = recipes[1].model_copy(update={"clipping": Tricks.plain().clipping})
    mine, _ = together(task, recipes, (1, 2))
    alone = [train(task, recipe, seed) for recipe, seed in zip(recipes, (1, 2), strict=True)]
    assert alone[1].diverged
    assert mine[1].diverged
    assert mine[1].reason == alone[1].reason
    assert (mine[0].state, mine[0].score) == ("complete", pytest.approx(alone[0].score))


def test_a_stop_is_for_one_member_and_the_stack_gets_smaller():
    task = Task("small", small_data(), lambda tricks: mlp(), epochs=4)
    heard, results = [], {}

    def hear(job, epoch):
        heard.append((job.number, epoch.number))
        return job.number == 1 and epoch.number == 1

    jobs = [Job(number, Tricks(), number) for number in range(3)]
    Runner(task).train(jobs, hear, lambda job, result: results.update({job.number: result}))
    assert [results[number].state for number in range(3)] == ["complete", "pruned", "complete"]
    assert results[1].reason == "the pruner stopped it after epoch 2"
    assert list(results) == [1, 0, 2]  # reported as soon as it ended
    assert [n for n, epoch in heard if epoch == 3] == [0, 2]
    weights = [result.weights["backbone.0.weight"] for result in results.values()]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in weights)


class Choosy(nn.Module):
    """A network whose control flow depends on its inputs, so it cannot be fused."""

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, inputs):
        return self.layers(inputs) * (2 if inputs.sum() > 0 else 1)


def test_what_cannot_be_fused_is_trained_alone_and_says_why_once():
    task = Task("choosy", small_data(), lambda tricks: Choosy(), epochs=2)
    runner, results = Runner(task), {}
    for numbers in ((0, 1), (2, 3)):
        jobs = [Job(number, Tricks(), number) for number in numbers]
        runner.train(jobs, lambda *unused: False, lambda job, got: results.update({job.number: got}))
    why = runner.refusals.of(Tricks())
    assert "data-dependent" in why
    assert [bool(results[number].warning) for number in range(4)] == [True, False, False, False]
    assert results[0].warning == f"trials of its shape are trained one by one: {why}"
    for number, result in results.items():
        assert result.score == train(task, Tricks(), number).score


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trainer": {"precision": "bf16-mixed"}}, "the trainer sets precision"),
        ({"channels_last": True}, "images are channels_last"),
    ],
)
def test_what_is_lightnings_affair_is_left_to_it(changes, why):
    task = Task("small", pictures(numbers=False), lambda tricks: residual_convnet(), epochs=1, **changes)
    assert together(task, [Tricks()] * 2, (1, 2))[1] == why


def test_a_trial_that_cannot_be_set_up_fails_alone():
    def network(tricks):
        if isinstance(tricks.optimizer, Lion):
            raise RuntimeError("no lions")
        return mlp()

    task = Task("small", small_data(), network, epochs=1)
    mine, refusal = together(task, [Tricks(), Tricks(optimizer="lion"), Tricks()], (1, 2, 3))
    assert not refusal
    assert [result.state for result in mine] == ["complete", "failed", "complete"]
    assert mine[1].reason == "RuntimeError: no lions"


def test_a_group_that_was_dropped_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "CHECKPOINT_SECONDS", 0.0)
    task = Task("small", small_data(), lambda tricks: mlp(), epochs=6)
    tricks = Tricks(averaging="ema", schedule="plateau", dropout="dropout")
    jobs = [Job(number, tricks, number, tmp_path / f"{number}.ckpt") for number in range(3)]
    whole, dropped, results = {}, [], {}
    Runner(task).train(
        [dataclasses.replace(job, checkpoint=None) for job in jobs],
        lambda *unused: False,
        lambda job, result: whole.update({job.number: result}),
    )

    def hear(job, epoch):
        if epoch.number == 3:
            dropped.append(job.number)
        return False

    with pytest.raises(Interrupted):
        Runner(task, interrupted=lambda: bool(dropped)).train(jobs, hear, lambda *unused: None)
    assert all(job.checkpoint.exists() for job in jobs)
    begun = []
    Runner(task).train(
        jobs,
        lambda job, epoch: begun.append(epoch.number) and False,
        lambda job, result: results.update({job.number: result}),
    )
    for number, result in whole.items():
        assert not results[number].warning
        # Memory addresses decide the order in which a CPU adds, so the last bits may differ.
        for mine, other in zip(results[number].epochs, result.epochs, strict=True):
            assert mine.metrics == pytest.approx(other.metrics, rel=1e-5, abs=1e-7)
        for name, tensor in result.weights.items():
            torch.testing.assert_close(results[number].weights[name], tensor, rtol=1e-5, atol=1e-7)


def test_metrics_of_torchmetrics_and_numbers_to_predict():
    inputs = torch.randn(60, 4)
    data = InMemoryData.from_arrays(inputs, inputs[:, :1] * 2, regression=True, batch_size=16)
    task = Task(
        "numbers",
        data,
        lambda tricks: mlp(4, classes=1),
        epochs=2,
        monitor="val/error",
        mode="min",
        loss=nn.functional.mse_loss,
        metrics={"error": MeanAbsoluteError()},
    )
    tricks = Tricks(smoothing="none")
    mine, refusal = together(task, [tricks] * 2, (1, 2))
    assert not refusal
    for seed, result in zip((1, 2), mine, strict=True):
        alone = train(task, tricks, seed)
        scores = [epoch.score for epoch in alone.epochs]
        assert [epoch.score for epoch in result.epochs] == pytest.approx(scores, rel=1e-4)


def accuracy(outputs, targets):
    """Return a Python number; fail if a network is too sure."""
    if outputs.max() > 1000:
        raise ValueError("too sure")
    return (outputs.argmax(-1) == targets).float().mean().item()


def test_a_metric_that_cannot_be_taken_of_one_fails_that_one_as_alone():
    def network(tricks):
        backbone = mlp()
        if isinstance(tricks.optimizer, Lion):
            nn.init.constant_(backbone[-1].bias, 2000.0)
        return backbone

    metrics = {"accuracy": accuracy, "first": lambda outputs, targets: (outputs.argmax(-1) == 0).sum()}
    task = Task("sure", small_data(), network, epochs=2, metrics=metrics)
    recipes = [Tricks(), Tricks(optimizer="lion", initialization="keep"), Tricks()]
    mine, refusal = together(task, recipes, (1, 2, 3))
    assert not refusal
    assert [result.state for result in mine] == ["complete", "failed", "complete"]
    assert mine[1].reason == "ValueError: too sure"
    for seed, recipe, result in zip((1, 2, 3), recipes, mine, strict=True):
        alone = train(task, recipe, seed)
        assert (result.state, result.reason) == (alone.state, alone.reason)
        for one, other in zip(result.epochs, alone.epochs, strict=True):
            assert one.metrics == pytest.approx(other.metrics, rel=1e-4)


def test_a_metric_of_many_numbers_is_lightnings_affair():
    metrics = {"accuracy": lambda outputs, targets: outputs.mean(0)}
    task = Task("many", small_data(), lambda tricks: mlp(), epochs=1, metrics=metrics)
    mine, refusal = together(task, [Tricks()] * 2, (1, 2))
    assert refusal == "a metric is not one number"
    assert {result.state for result in mine} == {"failed"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize(("accelerator", "why"), [("gpu", "No supported gpu backend"), ("mps", "MPS")])
def test_who_asks_for_a_device_that_is_not_there_is_told_so_as_alone(accelerator, why):
    task = Task("small", small_data(), lambda t: mlp(), epochs=1, trainer={"accelerator": accelerator})
    mine, refusal = together(task, [Tricks()] * 2, (1, 2))
    assert why in refusal
    assert [result.reason for result in mine] == [train(task, Tricks(), 1).reason] * 2
    assert all("MisconfigurationException" in result.reason for result in mine)
