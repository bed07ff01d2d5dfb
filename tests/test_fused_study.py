"""Groups in a study: drawn, trained, killed and judged."""

import os
import shutil
import signal

import optuna
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from conftest import mlp, optimize, small_data
from optuna.trial import TrialState
from programs import end_of, start, wait_for
from test_fusion import Choosy
from test_repeats import whole
from test_study import load, run, store, values

from lightning_tricks import InputError, ModuleTricks, Space, Task, Tricks, create_study, train
from lightning_tricks.fusion.shape import shape_of
from lightning_tricks.search.keys import FUSE, GROUP, VERDICT, kept
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.study import grouping
from lightning_tricks.study.trial_decisions import _group
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.repeats import SPREAD, tasks_of, train_together
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.job import Job
from lightning_tricks.trial.result import Interrupted
from lightning_tricks.trial.training import Training

pytestmark = pytest.mark.usefixtures("with_store")


def task(**changes):
    return Task("tiny", small_data(), lambda tricks: mlp(), epochs=3, **changes)


def search(study, its_task=None, **options):
    given = {"n_trials": 12, "workers": "inline", "fuse": 4, "progress": False, **options}
    return optimize(study, its_task or task(), **given)


def groups(study):
    """Return the trials of each group, by the number of the group's first trial."""
    found = {}
    for trial in study.trials:
        if GROUP in trial.user_attrs:
            found.setdefault(trial.user_attrs[GROUP][0], []).append(trial)
    return found


@pytest.fixture
def eager(monkeypatch):
    """Let a search draw groups as soon as it has learned something."""
    monkeypatch.setattr(grouping, "LEARNED_A_MEMBER", 1)


@pytest.fixture
def sizes(monkeypatch):
    """Numbers of trials in each training call."""
    found, trained = [], Runner._train
    monkeypatch.setattr(
        Runner, "_train", lambda self, jobs, *rest: found.append(len(jobs)) or trained(self, jobs, *rest)
    )
    return found


@pytest.mark.usefixtures("eager")
def test_a_group_is_of_one_shape_and_its_trials_are_told_as_any(sizes):
    study = create_study("tiny", storage="optuna.journal", pruner="none", epochs=3)
    search(study)
    assert max(sizes) > 1
    assert max(sizes) <= 4
    recipes = {t.number: Tricks.parse(Outcome.read(t).recipe) for t in study.trials}
    for members in groups(study).values():
        assert len({shape_of(recipes[trial.number]) for trial in members}) == 1
        assert len({repr(recipes[trial.number]) for trial in members}) > 1 or len(members) == 1
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert differences(study, task(), store()) == []


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["none", "pause"])
def test_killed_in_a_group_it_goes_on_to_the_same_trials(pruner, tmp_path):
    steps = (["--n-trials", "17"], ["--n-trials", "24"])
    options = ["--fuse", "4", "--workers", "inline", "--pruner", pruner]
    found = []
    for folder in ("undisturbed", "killed"):
        (tmp_path / folder).mkdir()
        os.chdir(tmp_path / folder)
        shutil.copy(tmp_path / "mlflow.db", ".")
        assert run(*steps[0], *options) == 0
        if folder == "killed":
            process = start(*steps[1], *options, SLOW="0.5")
            wait_for(process, lambda: sum(t.state == TrialState.RUNNING for t in load().trials) > 1)
            process.send_signal(signal.SIGKILL)
            end_of(process)
        assert run(*steps[1], *options) == 0
        assert groups(load())
        found.append((values(load()), [t.params for t in load().trials]))
    assert found[0] == found[1]


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_who_dies_while_a_group_is_drawn_goes_on_to_the_same_trials(monkeypatch, sizes):
    study = create_study("undisturbed", storage="optuna.journal", pruner="none")
    search(study, seed=1)
    last = next(members[-1].number for members in groups(study).values() if len(members) > 2)
    suggest, left = optuna.Trial._suggest, [4]

    def die(trial, *parameter):
        if trial.number == last:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        return suggest(trial, *parameter)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "_suggest", die)
        again = create_study("again", storage="optuna.journal", pruner="none")
        with pytest.raises(KeyboardInterrupt):
            search(again, seed=1)
    assert len(again.trials) == last  # nothing is kept of the trial that was being drawn
    sizes.clear()
    search(again, seed=1)
    assert sizes[0] == len(next(m for m in groups(again).values() if m[-1].number == last))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert values(again) == values(study)


def test_a_verdict_has_its_seeds_in_groups_and_says_the_same():
    judged = {}
    for fuse in ("off", 8):
        study = create_study(f"by {fuse}", storage="optuna.journal")
        search(study, n_trials=4, finalists=1, seeds=3, fuse=fuse)
        own = optuna.load_study(study_name=f"by {fuse}.verdict", storage=study._storage)
        named = [
            (
                t.user_attrs["tricks:entry"],
                t.user_attrs["tricks:phase"],
                t.user_attrs["tricks:seed_index"],
            )
            for t in own.trials
        ]
        judged[fuse] = {name: t.value for name, t in zip(named, own.trials, strict=True)}
        assert differences(own, task(), store()) == []
    assert judged[8].keys() == judged["off"].keys()
    same = sum(judged[8][name] == pytest.approx(value) for name, value in judged["off"].items())
    assert same >= 0.9 * len(judged[8])  # rounding may move one of 12 samples to the other side


def test_repeats_are_a_group_and_the_mean_is_what_it_is_one_by_one():
    its_task, heard = whole(), []
    results = {}
    Runner(its_task).train(
        [Job(0, Tricks(), 7), Job(1, Tricks(dropout="dropout"), 8)],
        lambda job, epoch: heard.append((job.number, epoch)) or False,
        lambda job, result: results.update({job.number: result}),
    )
    for number, tricks, seed in ((0, Tricks(), 7), (1, Tricks(dropout="dropout"), 8)):
        expected = train_together(Training(its_task, tricks, seed), tasks_of(its_task))
        assert [epoch for job, epoch in heard if job == number] == results[number].epochs
        for mine, theirs in zip(results[number].epochs, expected.epochs, strict=True):
            assert mine.metrics == pytest.approx(theirs.metrics, rel=1e-3, abs=1e-5)
        assert SPREAD in results[number].epochs[0].metrics


def test_the_repeats_of_a_trial_stop_together():
    results = {}
    Runner(whole()).train(
        [Job(number, Tricks(), number) for number in range(2)],
        lambda job, epoch: job.number == 0 and epoch.number == 1,
        lambda job, result: results.update({job.number: result}),
    )
    assert (results[0].state, len(results[0].epochs)) == ("pruned", 2)
    assert (results[1].state, len(results[1].epochs)) == ("complete", 4)


def test_several_seeds_in_one_call():
    together = train(task(), Tricks(), seeds=[3, 4])
    assert len(together) == 2
    for seed, result in zip((3, 4), together, strict=True):
        alone = train(task(), Tricks(), seed)
        torch.testing.assert_close(
            result.weights["backbone.0.weight"], alone.weights["backbone.0.weight"], rtol=1e-3, atol=1e-5
        )
    with pytest.raises(InputError, match="either seed"):
        train(task(), Tricks())
    with pytest.raises(InputError, match="either seed"):
        train(task(), Tricks(), 1, seeds=[2])


@pytest.mark.parametrize("wrong", ["0", "some", "-1", "1.5"])
def test_a_wrong_number_is_told_in_a_line(wrong, capsys):
    assert run("--fuse", wrong) == 2
    assert "must be auto, off or a whole number from 1 to 10⁹ (got" in capsys.readouterr().err
    with pytest.raises(InputError, match="fuse must be auto, off or a whole number"):
        GroupSize.of(wrong)


@pytest.fixture
def taking(monkeypatch):
    """Return a function that sets the seconds per training that `auto` measures for each group size."""

    def take(seconds):
        found = seconds if callable(seconds) else seconds.__getitem__
        monkeypatch.setattr(Runner, "seconds", lambda self, count, recipe: (found(count), ""))

    return take


def faster_up_to(most):
    """Return seconds that fall up to a group size and rise after it."""
    return lambda count: 1 + abs(count - most)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 1.2}, 1),
        ({1: 1.0, 2: 0.9, 4: 0.95}, 2),
        ({1: 1.0, 2: 0.7, 4: 0.5, 8: 0.4, 16: 0.41}, 8),
        ({1: 1.0, 2: 1.0, 4: 0.8, 8: 0.9}, 4),
    ],
)
def test_auto_takes_as_many_as_the_time_for_each_falls_with(seconds, best):
    found = GroupSize.of("auto").grown(64, lambda count: (seconds[count], ""))
    assert (found.best, found.final) == (best, True)
    assert found.grown(64, pytest.fail) == found


def test_no_more_are_tried_than_are_wanted():
    asked = []

    def measure(count):
        asked.append(count)
        return 1 / count, ""

    some = GroupSize.of("auto").grown(3, measure)
    assert (some.best, some.final, max(asked)) == (4, False, 4)
    asked.clear()
    assert some.grown(4, measure) == some
    assert some.grown(9, measure).best == 16
    assert asked == [8, 16]  # known sizes are not measured again


def test_what_was_disturbed_once_is_tried_again():
    slow = iter([1.0, 1.0, 0.6, 9.0, 0.3, 0.4, 0.5])  # 1 twice, 2, 4 disturbed, 4, 8 twice
    assert GroupSize.of("auto").grown(64, lambda count: (next(slow), "")).best == 4


@pytest.mark.usefixtures("without_mlflow")
def test_auto_says_why_nothing_is_fused(capsys):
    its_task = Task("tiny", small_data(), lambda tricks: Choosy(), epochs=1)
    found = GroupSize().grown(2, Runner(its_task).seconds)
    assert found.alone
    assert "data-dependent" in found.why
    study = create_study("tiny", storage=None)
    search(study, its_task, n_trials=2, finalists=1, seeds=3, fuse="auto", progress=True)
    assert "trained one by one: vmap" in capsys.readouterr().err


@pytest.mark.usefixtures("without_mlflow")
def test_auto_says_what_of_a_task_cannot_be_fused(capsys):
    its_task = task(trainer={"precision": "bf16-mixed"})
    search(
        create_study("tiny", storage=None),
        its_task,
        n_trials=2,
        finalists=1,
        seeds=3,
        fuse="auto",
        progress=True,
    )
    told = capsys.readouterr().err
    assert told.count("trainings are done one by one: the trainer sets precision") == 1


class Own(pl.LightningModule):
    """A module with its own steps, which cannot be trained in a group."""

    def __init__(self):
        super().__init__()
        self.network = mlp()

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, number):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, number):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("fuse", ["auto", 4])
def test_trials_that_cannot_be_trained_as_one_are_not_drawn_as_groups(fuse, capsys):
    """So what is drawn does not depend on when a worker finds out."""
    its_task = Task(
        "tiny",
        small_data(),
        lambda tricks: Own(),
        tricks=ModuleTricks,
        monitor="val/loss",
        mode="min",
        epochs=1,
    )
    study = create_study("tiny", direction="minimize", storage=None, pruner="none")
    search(study, its_task, n_trials=6, fuse=fuse, progress=True)
    assert not groups(study)
    assert capsys.readouterr().err.count("one by one: a LightningModule has steps of its own") == 1


def test_auto_measures_what_is_there_and_off_is_one():
    assert GroupSize().grown(64, Runner(task()).seconds).best in (1, 2, 4, 8, 16, 32, 64)
    assert GroupSize.of("off").alone
    assert GroupSize.of(5) == GroupSize(5, final=True, automatic=False)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_a_space_that_pins_the_shape_is_searched_in_groups():
    study = create_study("tiny", storage=None, pruner="none")
    space = Space(Tricks).pin({"normalization": "batch", "scaling": "standardize", "dropout": "none"})
    search(study, space=space, n_trials=10)
    assert any(len(members) == 4 for members in groups(study).values())


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_what_was_measured_once_holds_for_the_study(taking, sizes):
    study = create_study("tiny", storage="optuna.journal", pruner="none")
    taking(faster_up_to(2))
    search(study, n_trials=10, fuse="auto")
    taking(faster_up_to(8))
    search(study, n_trials=16, fuse="auto")
    assert study.user_attrs[FUSE]["best"] == 2
    assert max(sizes) == 2


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_more_are_tried_as_a_study_grows(taking):
    study = create_study("tiny", storage="optuna.journal", pruner="none")
    taking(faster_up_to(64))
    search(study, n_trials=6, fuse="auto")
    first = study.user_attrs[FUSE]["best"]
    search(study, n_trials=30, fuse="auto")
    assert 2 <= first < study.user_attrs[FUSE]["best"] <= 16


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_what_was_measured_holds_for_a_verdict_that_comes_later(taking):
    taking(faster_up_to(2))
    study = create_study("tiny", storage="optuna.journal", pruner="none")
    search(study, n_trials=20, fuse="auto")
    taking(faster_up_to(8))
    search(study, n_trials=20, fuse="auto", finalists=1, seeds=3)
    own = optuna.load_study(study_name="tiny.verdict", storage=study._storage)
    assert own.user_attrs[FUSE]["best"] == study.user_attrs[FUSE]["best"] == 2


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.usefixtures("eager")
def test_a_study_is_the_same_whatever_was_measured(taking):
    """Except whether anything is fused: that decides how far a search looks ahead."""
    found = []
    for most in (2, 4, 64):
        taking(faster_up_to(most))
        study = create_study(f"by {most}", storage="optuna.journal", pruner="none")
        search(study, n_trials=14, fuse="auto")
        assert max(map(len, groups(study).values())) > 3
        found.append((values(study), [trial.params for trial in study.trials]))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("held", "group"),
    [([8, 2], (8, 2)), ("82", None), ([1], None), ([1, 0], None), ([None, 2], None), (None, None)],
)
def test_a_group_that_was_damaged_is_none(held, group):
    assert _group(held) == group


@pytest.mark.usefixtures("without_mlflow")
def test_who_leaves_while_it_is_measured_loses_nothing(monkeypatch):
    def leave(*unused):
        signal.raise_signal(signal.SIGTERM)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "seconds", leave)
        study = create_study("tiny", storage="optuna.journal")
        with pytest.raises(KeyboardInterrupt):
            search(study, n_trials=2, finalists=1, seeds=3, fuse="auto")
    assert FUSE not in study.user_attrs
    monkeypatch.setattr(Runner, "seconds", lambda self, count, recipe: (1 / count, ""))
    search(study, n_trials=2, finalists=1, seeds=3, fuse="auto")
    assert kept(VERDICT) in study.user_attrs


def test_trainings_with_splits_of_their_own_are_as_one_what_they_are_alone():
    its_task = whole().rerun()
    tricks = Tricks(dropout={"kind": "dropout", "p": 0.2})
    together = train(its_task, tricks, seeds=[3, 5, 8])
    assert len({result.score for result in together}) > 1
    for seed, result in zip([3, 5, 8], together, strict=True):
        alone = train(its_task, tricks, seed)
        assert result.score == pytest.approx(alone.score, abs=1e-4)
        expected = whole().data.split_anew(seed).splits["validation"]
        assert not torch.equal(expected.inputs, whole().data.splits["validation"].inputs)
        module = its_task.module(tricks)
        module.load_state_dict(dict(alone.weights))
        outputs = module.eval()(expected.inputs)
        right = (outputs.argmax(1) == expected.targets).double().mean()
        assert alone.score == pytest.approx(float(right))  # validated on the samples of its own seed
