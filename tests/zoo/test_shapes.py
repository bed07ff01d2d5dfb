"""Unusual networks that people bring: what each trick does on them, and what is left out."""

import copy
import warnings

import lightning
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from conftest import VARIANTS, in_order, mlp, samples, small_data, trainer, variant
from pytorch_lightning.callbacks import BaseFinetuning
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_tricks import (
    ImageTricks,
    InMemoryData,
    InputError,
    ModuleTricks,
    Space,
    Split,
    Task,
    Tricks,
    TricksModule,
    create_study,
    load_with_tricks,
    optimize,
    train,
    with_tricks,
)
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.surgery.norms import NORMS
from lightning_tricks.task.checks import check
from lightning_tricks.task.rehearsal import build
from lightning_tricks.tricks.recipe import describe
from lightning_tricks.tricks.transfer import places

pytestmark = pytest.mark.usefixtures("with_store")


class ActorCritic(nn.Module):
    """Two heads, assigned before the body."""

    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(8, 1)
        self.actor = nn.Linear(8, 3)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, inputs):
        hidden = F.relu(self.second(F.relu(self.first(inputs))))
        return self.actor(hidden) + self.critic(hidden)


def norms_of(network):
    return [path for path, layer in network.named_modules() if isinstance(layer, NORMS)]


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_heads_have_no_norm_and_keep_their_biases_wherever_they_are_assigned(kind):
    network = ActorCritic()
    variant("normalization", kind).apply(network)
    assert norms_of(network) == ["first.tricks_norm", "second.tricks_norm"]
    assert network.critic.bias is not None
    assert network.actor.bias is not None


def test_heads_are_never_frozen_and_learn_at_the_full_rate():
    network = ActorCritic()
    found = places(network)
    assert [found[id(layer.weight)] for layer in (network.critic, network.actor)] == [1.0, 1.0]
    assert [found[id(layer.weight)] for layer in (network.first, network.second)] == [0.0, 0.5]
    variant("transfer", "frozen", share=1.0).freeze(network)
    assert {n.partition(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {
        "critic",
        "actor",
    }


class Words(nn.Module):
    """A classifier of words whose head shares the weight of its embedding."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 12, bias=False)
        self.words = nn.Embedding(12, 8)
        self.body = nn.Linear(8, 8)
        self.head.weight = self.words.weight

    def forward(self, inputs):
        return self.head(F.relu(self.body(self.words(inputs).mean(1))))


def test_a_head_that_is_tied_to_an_embedding_is_not_frozen_nor_drawn_again():
    network = Words()
    before = network.words.weight.clone()
    variant("initialization", "normal").apply(network)
    assert torch.equal(network.head.weight, before)
    variant("transfer", "frozen", share=1.0).freeze(network)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight"]


class Stream(IterableDataset):
    """Samples without a length."""

    def __iter__(self):
        yield from zip(*samples(24, 6), strict=True)


def stream_task(**trainer_settings):
    data = DataLoader(Stream(), batch_size=8), DataLoader(TensorDataset(*samples(12, 6, seed=1)), 6)
    return Task("stream", data, lambda tricks: mlp(), epochs=2, trainer=trainer_settings)


def test_without_a_length_what_needs_one_leaves_the_search():
    checked = check(stream_task(), Space(Tricks))
    assert not {"cosine", "linear", "one_cycle"} & set(checked.space.domains["schedule"].extremes())
    assert "ema" not in checked.space.domains["averaging"].extremes()
    assert "has no length: set limit_train_batches or max_steps" in checked.notes[0]
    study = create_study("stream", storage=None, epochs=2)
    optimize(study, stream_task(), n_trials=3, workers="inline", progress=False)
    rates = [e["metrics"]["lr"] for t in study.trials for e in Outcome.read(t).epochs]
    assert min(rates) >= 0
    with pytest.raises(InputError, match="'cosine' needs the number of steps"):
        loader = DataLoader(Stream(), batch_size=8)
        trainer(1).fit(TricksModule(mlp(), Tricks()), loader, loader)


@pytest.mark.parametrize("settings", [{"limit_train_batches": 3}, {"max_steps": 6}])
def test_a_limit_stands_for_the_length(settings):
    task = stream_task(**settings)
    assert "cosine" in check(task, Space(Tricks)).space.domains["schedule"].extremes()
    result = train(task, Tricks(), seed=0)
    assert result.state == "complete"
    assert 0 <= result.epochs[-1].metrics["lr"] < Tricks().optimizer.lr


def yes_or_no(loss, outputs=1, shape=(-1, 1), **options):
    inputs, _ = samples(40, 6)
    targets = (inputs[:, :1] > 0).float().view(shape)
    data = [DataLoader(TensorDataset(inputs, targets), 20)] * 2
    return Task("bce", data, lambda tricks: mlp(classes=outputs), epochs=8, loss=loss, **options)


def test_one_logit_has_an_accuracy():
    task = yes_or_no(F.binary_cross_entropy_with_logits)
    check(task, Space(Tricks))
    tricks = Tricks(optimizer={"kind": "adam", "lr": 0.03}, schedule="constant")
    scores = [epoch.score for epoch in train(task, tricks, seed=0).epochs]
    assert len(set(scores)) > 1
    assert scores[-1] > 0.9


def test_an_accuracy_of_probabilities_is_refused():
    def loss(outputs, targets):
        return F.binary_cross_entropy(outputs.sigmoid(), targets)

    with pytest.raises(InputError, match="accuracy takes binary logits"):
        check(yes_or_no(loss), Space(Tricks))


class Series(nn.Module):
    """Reads sequences (N, time, features)."""

    def __init__(self):
        super().__init__()
        self.reader = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs):
        return self.head(self.reader(inputs)[0][:, -1])


def series_data():
    torch.manual_seed(0)
    inputs = torch.randn(60, 5, 3) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 5.0, 7.0])
    split = Split(inputs, (inputs[:, :, 0].sum(1) > 0).long())
    return InMemoryData(split, split, batch_size=20)


def test_sequences_are_standardized_by_feature():
    task = Task("series", series_data(), lambda tricks: Series(), epochs=1)
    module = task.module(Tricks(normalization="none"))
    trainer(1).fit(module, datamodule=series_data())
    assert module.scaling.offset.shape == (3,)
    scaled = module.scaling(series_data().splits["train"].inputs)
    assert scaled.mean((0, 1)).abs().max() < 1e-3
    assert (scaled.std((0, 1)) - 1).abs().max() < 0.02


def test_inputs_whose_features_cannot_be_told_are_scaled_as_a_whole():
    inputs, targets = samples(24, 5, 6)
    data = InMemoryData(Split(inputs, targets), Split(inputs, targets), batch_size=8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 3))
    task = Task("flat", data, lambda tricks: copy.deepcopy(network), epochs=1)
    module = task.module(Tricks())
    trainer(1).fit(module, datamodule=data)
    assert module.scaling.offset.shape == (1,)


class Gained(nn.Module):
    """A norm of another package, with a gain that is not called bias or weight."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, inputs):
        return self.gain * inputs * torch.rsqrt(inputs.square().mean(-1, keepdim=True) + 1e-6)


def test_biases_and_gains_of_any_make_are_not_decayed():
    network = nn.ModuleDict({"reader": nn.LSTM(3, 8, batch_first=True), "norm": Gained(8)})
    network["head"] = nn.Linear(8, 1)
    network.forward = lambda inputs: network["head"](network["norm"](network["reader"](inputs)[0]))
    decayed, others = variant("weight_decay", "l2").groups(network)
    names = {id(p): name for name, p in network.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "reader.weight_ih_l0",
        "reader.weight_hh_l0",
        "head.weight",
    }
    assert {names[id(p)] for p in others["params"]} == {
        "reader.bias_ih_l0",
        "reader.bias_hh_l0",
        "norm.gain",
        "head.bias",
    }


WEIGHTS = torch.tensor([0.5, 20.0, 90.0])


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=WEIGHTS),
        lambda outputs, targets: F.cross_entropy(outputs, targets, weight=WEIGHTS),
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
    ids=["module", "lambda", "no weights", "sum"],
)
@pytest.mark.parametrize("ignored", [False, True])
def test_smoothing_is_that_of_torch_beside_weights_and_ignored_targets(loss, ignored):
    outputs, targets = torch.randn(8, 3), torch.tensor([0, 1, 2, 2, 1, 0, 2, 0])
    if ignored:
        index = getattr(loss, "ignore_index", -100)
        targets[2] = targets[5] = index
    module = TricksModule(mlp(), Tricks(smoothing="label_smoothing", scaling="none"), loss=loss)
    _, soft = module.learned((samples(8, 6)[0], targets))
    options = {name: getattr(loss, name, None) for name in ("weight", "reduction", "ignore_index")}
    if not isinstance(loss, nn.Module):
        options = {"weight": WEIGHTS}
    options = {name: value for name, value in options.items() if value is not None}
    expected = F.cross_entropy(outputs, targets, label_smoothing=0.1, **options)
    torch.testing.assert_close(loss(outputs, soft), expected)


def test_a_loss_that_takes_no_probabilities_of_an_ignored_class_is_told():
    loss = nn.CrossEntropyLoss(ignore_index=1)
    task = Task("ignored", small_data(), lambda tricks: mlp(), loss=loss, epochs=1)
    space = Space(Tricks).narrow({"smoothing": ["none", "label_smoothing"]})
    checked = check(task, space)
    assert checked.space.domains["smoothing"].extremes() == ("none",)
    assert "ignore_index is not supported" in checked.notes[0]


def test_mixing_keeps_the_size_of_a_weighted_loss():
    loss = nn.CrossEntropyLoss(weight=WEIGHTS)
    module = TricksModule(mlp(), Tricks(mixing="mixup", scaling="none"), loss=loss)
    batch = samples(32, 6)
    with torch.no_grad():
        plain = float(loss(module(batch[0]), batch[1]))
        mixed = [float(module.learned_loss(batch)) for _ in range(10)]
    assert max(mixed) < 3 * plain


def segmentation(tricks):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
    )
    return nn.Sequential(*network, nn.Conv2d(8, 2, 1))


def mask_loaders():
    images = torch.randint(0, 255, (16, 3, 8, 8), dtype=torch.uint8)
    masks = (images[:, 0] > 127).long()
    return [DataLoader(TensorDataset(images, masks), 8)] * 2


def test_augmentation_that_would_leave_a_mask_behind_leaves_the_search():
    task = Task("masks", mask_loaders(), segmentation, tricks=ImageTricks, epochs=1)
    checked = check(task, Space(ImageTricks))
    assert checked.space.domains["augmentation"].extremes() == ("none",)
    assert "cutmix" not in checked.space.domains["mixing"].extremes()
    assert "moves pixels, and the targets are images" in checked.notes[0]
    assert train(task, ImageTricks(smoothing="label_smoothing"), seed=0).state == "complete"


class Transposed(nn.Module):
    """A layer that holds its weight as (inputs, outputs), like Hugging Face's `Conv1D`."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.full((inputs, outputs), 0.5))
        self.bias = nn.Parameter(torch.ones(outputs))

    def forward(self, inputs):
        return torch.addmm(self.bias, inputs, self.weight)


def test_layers_of_other_makes_are_drawn_normed_and_dropped():
    network = nn.Sequential(Transposed(6, 400), nn.ReLU(), Transposed(400, 3))
    variant("initialization", "he_normal").apply(network)
    assert float(network[0].weight.detach().std()) == pytest.approx((2 / 6) ** 0.5, rel=0.1)
    assert not network[0].bias.any()
    variant("normalization", "batch").apply(network)
    variant("dropout", "dropout").apply(network)
    assert [type(m).__name__ for m in in_order(network)] == [
        "Transposed",
        "LastBatchNorm",
        "ReLU",
        "UniformDropout",
        "Transposed",
    ]
    assert network(torch.randn(4, 6)).shape == (4, 3)


def test_kinds_that_act_on_nothing_leave_the_search():
    space = Space(Tricks).narrow({"transfer": ["all", "frozen", "discriminative"]})
    checked = check(Task("one", small_data(), lambda tricks: nn.Linear(6, 3)), space)
    assert checked.space.domains["transfer"].extremes() == ("all",)
    assert "all layers are outputs" in "; ".join(checked.notes)


class Bare(nn.Module):
    """Parameters without any layer."""

    def __init__(self):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(3, 6))

    def forward(self, inputs):
        return -(inputs[:, None] - self.centers).square().sum(2)


def test_initialisation_and_weight_norm_leave_where_no_layer_is_known():
    checked = check(Task("bare", small_data(), lambda tricks: Bare(), epochs=1), Space(Tricks))
    assert checked.space.domains["initialization"].extremes() == ("torch",)
    assert checked.space.domains["normalization"].extremes() == ("none",)


@pytest.mark.parametrize("kind", ["none", "batch", "layer"])
def test_norms_of_other_makes_are_swapped_and_taken_out(kind):
    network = nn.Sequential(nn.Linear(6, 8), Gained(8), nn.ReLU(), nn.Linear(8, 3))
    variant("normalization", kind).apply(network)
    assert not any(isinstance(layer, Gained) for layer in network.modules())
    expected = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[kind]
    assert isinstance(network[1], (expected, nn.modules.batchnorm._BatchNorm)) or kind != "batch"
    assert len(norms_of(network)) == (kind != "none")


class Functional(nn.Module):
    """Calls dropout as a function, with a rate in an attribute or without one."""

    def __init__(self, rate):
        super().__init__()
        self.body, self.head = nn.Linear(6, 64), nn.Linear(64, 3)
        if rate:
            self.drop_rate = rate

    def forward(self, inputs):
        rate = vars(self).get("drop_rate", 0.5)
        return self.head(F.dropout(F.relu(self.body(inputs)), rate, self.training))


def test_dropout_that_is_a_function_follows_the_trick():
    network = Functional(0.3)
    variant("dropout", "none").apply(network)
    assert network.drop_rate == 0
    inputs = torch.randn(4, 6)
    assert torch.equal(network(inputs), network(inputs))
    variant("dropout", "dropout", p=0.2).apply(network)
    assert network.drop_rate == 0.2


def test_dropout_that_cannot_be_changed_is_told_and_stays():
    task = Task("drops", small_data(), lambda tricks: Functional(None), epochs=1)
    checked = check(task, Space(Tricks))
    assert checked.space.nearest(Tricks()).dropout.kind == "own"
    assert "calls a dropout function with the rate 0.5, which no attribute holds" in checked.notes[0]
    with pytest.raises(InputError, match=r"cannot change the rate 0.5 .*set dropout to 'own'$"):
        check(task, Space(Tricks).pin({"dropout": "none"}))


class Steps:
    """The steps of a module for either package, on dict batches."""

    def loss(self, batch):
        return F.cross_entropy(self.answer(batch["inputs"]), batch["labels"])

    def answer(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, batch_idx):
        return {"loss": self.loss(batch)}

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Plain(Steps, pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3))


class Unified(Steps, lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3))


def dicts(count=24, size=8, seed=0, **options):
    rows = [{"inputs": i, "labels": t} for i, t in zip(*samples(count, 6, seed=seed), strict=True)]
    return DataLoader(rows, size, **options)


def module_task(make, **options):
    settings = {"tricks": ModuleTricks, "epochs": 2, "monitor": "val_loss", "mode": "min", **options}
    data = options.pop("data", None) or (dicts(shuffle=True), dicts(seed=1), dicts(seed=2))
    return Task("own", **{"data": data, "backbone": lambda tricks: make(), **settings})


@pytest.mark.parametrize("make", [Plain, Unified])
def test_yours_is_trained_as_without_us_bit_by_bit(make):
    task = module_task(make)
    ours = train(task, ModuleTricks.yours(), seed=3)
    package = pl if make is Plain else lightning
    package.seed_everything(3, verbose=False)
    theirs = make()
    runner = package.Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        callbacks=[Reseed(3) if make is Plain else UnifiedReseed(3)],
    )
    runner.fit(theirs, dicts(shuffle=True), dicts(seed=1))
    assert ours.state == "complete"
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.weights[name], value), name


class Seeds:
    """Seeds each epoch as a trial does."""

    def __init__(self, seed):
        self.seed = seed

    def on_train_epoch_start(self, trainer, module):
        from lightning_tricks.seeds import derive

        pl.seed_everything(derive(self.seed, trainer.current_epoch, "epoch"), verbose=False)


class Reseed(Seeds, pl.Callback):
    pass


class UnifiedReseed(Seeds, lightning.pytorch.callbacks.Callback):
    pass


@pytest.mark.parametrize("make", [Plain, Unified])
def test_a_module_of_either_package_goes_to_a_champion_that_comes_back(make, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    study = create_study("own", storage=None, direction="minimize", epochs=2)
    options = {"finalists": 1, "seeds": 3, "workers": "inline", "progress": False}
    summary = optimize(study, module_task(make), n_trials=4, tracking_uri=uri, **options)
    assert [t.state.name for t in study.trials].count("FAIL") == 0
    assert study.trials[0].user_attrs["tricks:role"] == "yours"
    assert summary.verdict.incumbent == "yours"
    assert {"yours", "baseline", "plain"} <= set(summary.verdict.rows)
    assert "your module as it is" in summary.verdict.headline()
    yours = ModuleTricks.yours()
    assert all(old == describe(getattr(yours, stage)) for stage, old, _ in summary.changes)
    back = [load_with_tricks("models:/own@champion", make(), tracking_uri=uri).eval() for _ in "ab"]
    inputs = samples(5, 6)[0]
    assert isinstance(back[0], make)
    assert torch.equal(back[0].answer(inputs), back[1].answer(inputs))
    load_with_tricks("models:/own@ensemble", make(), member=2, tracking_uri=uri)
    with pytest.raises(InputError, match="own@champio"):
        load_with_tricks("models:/own@champio", make(), tracking_uri=uri)


class Teaching(Plain):
    """A student and a teacher that follows it, as in BYOL."""

    def __init__(self):
        super().__init__()
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)

    def answer(self, inputs):
        return self.network(inputs) + 0.1 * self.teacher(inputs)

    def on_train_batch_end(self, *unused):
        for mine, its in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            mine.data.lerp_(its.data, 0.1)


def test_a_teacher_and_its_student_stay_alike():
    checked = check(module_task(Teaching), Space(ModuleTricks))
    assert checked.space.domains["normalization"].extremes() == ("own",)
    assert checked.space.domains["initialization"].extremes() == ("keep",)
    assert "teacher is a copy of network, which must stay alike" in checked.notes[0]


def test_zeros_on_purpose_are_not_drawn():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(network[2].weight)
    variant("initialization", "he_normal").apply(network)
    assert not network[2].weight.any()


def test_parametrized_layers_keep_weights_and_biases():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.utils.parametrizations.orthogonal(network[0])
    before = copy.deepcopy(network[0].state_dict())
    variant("initialization", "he_normal").apply(network)
    variant("normalization", "weight").wrap(network)
    assert all(torch.equal(value, before[name]) for name, value in network[0].state_dict().items())
    assert nn.utils.parametrize.is_parametrized(network[2])


class Counting(Plain):
    """Counts its steps, keeps its losses, and differentiates by its inputs."""

    def __init__(self):
        super().__init__()
        self.network.insert(1, nn.BatchNorm1d(8))
        self.steps, self.seen = 0, []

    def training_step(self, batch, batch_idx):
        inputs = batch["inputs"].requires_grad_()
        loss = self.loss({**batch, "inputs": inputs})
        (slope,) = torch.autograd.grad(loss, inputs, create_graph=True)
        self.last = loss  # keeps the graph
        self.steps += 1
        self.seen.append(float(loss.detach()))
        return loss + 0.01 * slope.square().sum()


def test_gathering_statistics_leaves_no_trace_in_the_module():
    tricks = ModuleTricks(averaging="swa")
    module = with_tricks(Counting(), tricks, monitor="val_loss", validation_loss="val_loss")
    trainer(4).fit(module, dicts(), dicts(seed=1))
    assert module.steps == len(module.seen) == 4 * 3
    assert (
        "swa" in check(module_task(Counting), Space(ModuleTricks)).space.domains["averaging"].extremes()
    )


class Hooked(nn.Module):
    """A hook that points at the module itself."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.kept = []
        self.body.register_forward_hook(lambda *given: self.kept.append(self.head.weight))

    def forward(self, inputs):
        return self.head(F.relu(self.body(inputs)))


def test_what_the_factory_made_is_not_copied():
    task = Task("hooked", small_data(), lambda tricks: Hooked(), epochs=1)
    module = task.module(Tricks(scaling="none"))
    module(samples(4, 6)[0])
    assert module.backbone.kept[-1] is module.backbone.head.weight


@pytest.mark.parametrize("count", [17, 18])
def test_a_last_batch_of_one_sample_is_left_out_beside_batch_norm(count):
    loader = DataLoader(TensorDataset(*samples(count, 6)), 8, shuffle=True)
    task = Task("single", (loader, loader), lambda tricks: mlp(), epochs=2)
    notes = check(task, Space(Tricks)).notes
    assert any("batches of one sample are left out" in note for note in notes) == (count == 17)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="batches of one sample")
        assert train(task, Tricks(), seed=0).state == "complete"
    own = module_task(Counting, data=(dicts(count), dicts(seed=1)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="batches of one sample")
        assert train(own, ModuleTricks(), seed=0).state == "complete"


class OnSequences(Plain):
    """Normalizes maps, of which one sample has several values."""

    def __init__(self):
        super().__init__()
        body = [nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveAvgPool1d(1)]
        self.network = nn.Sequential(nn.Unflatten(1, (1, 6)), *body, nn.Flatten(), nn.Linear(8, 3))
        self.single = 0

    def training_step(self, batch, batch_idx):
        self.single += len(batch["labels"]) == 1
        return super().training_step(batch, batch_idx)


def test_a_batch_of_one_map_is_learned():
    task = module_task(OnSequences, data=(dicts(17), dicts(seed=1)))
    module = build(task, ModuleTricks())
    trainer(2).fit(module, dicts(17), dicts(seed=1))
    assert module.single == 2


class Asking(Plain):
    """Asks its Trainer for a logger and a schedule."""

    def training_step(self, batch, batch_idx):
        self.logger.experiment.add_scalar("a", 1.0, batch_idx)
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        return super().training_step(batch, batch_idx)


class AskingData(pl.LightningDataModule):
    def setup(self, stage):
        self.size = 8 * self.trainer.world_size

    def train_dataloader(self):
        return dicts(size=self.size)

    def val_dataloader(self):
        return dicts(size=self.size, seed=1)


def test_modules_and_data_may_ask_their_trainer():
    task = module_task(Asking, data=AskingData())
    check(task, Space(ModuleTricks))
    for tricks in (ModuleTricks(schedule="constant"), ModuleTricks.yours()):
        assert train(task, tricks, seed=0).state == "complete"


class WithLoaders(Plain):
    def train_dataloader(self):
        return dicts()

    def val_dataloader(self):
        return dicts(seed=1)


class Heard(pl.Callback):
    heard = []

    def on_train_start(self, trainer, pl_module):
        self.heard.append(type(trainer.logger).__name__)


def test_a_module_may_have_its_own_loaders_and_a_task_callbacks_and_a_logger(tmp_path):
    Heard.heard.clear()
    logger = pl.loggers.CSVLogger(tmp_path)
    task = Task(
        "loaders",
        None,
        lambda tricks: WithLoaders(),
        tricks=ModuleTricks,
        epochs=1,
        monitor="val_loss",
        mode="min",
        callbacks=[Heard()],
        logger=logger,
    )
    assert train(task, ModuleTricks(), seed=0).state == "complete"
    assert Heard.heard == ["CSVLogger"]
    assert not task.tests()
    other = lightning.pytorch.callbacks.Callback()
    mixed = module_task(Plain, callbacks=[other])
    assert "import both from one of them" in train(mixed, ModuleTricks(), seed=0).reason


class Late(Plain):
    """Makes its head in `setup`, only once."""

    def setup(self, stage):
        assert stage != "fit" or not hasattr(self, "head")
        if stage == "fit":
            self.head = nn.Linear(3, 3)

    def answer(self, inputs):
        return self.head(self.network(inputs))


class Configured(Plain):
    def __init__(self):
        super().__init__()
        self.head = None

    def configure_model(self):
        if self.head is None:
            self.head = nn.Linear(3, 3)

    def answer(self, inputs):
        return self.head(self.network(inputs))


@pytest.mark.parametrize("make", [Late, Configured])
def test_layers_that_are_made_late_take_tricks_and_come_back(make):
    task = module_task(make)
    module = build(task, ModuleTricks(normalization="batch"))
    assert norms_of(module) == ["network.0.tricks_norm", "network.2.tricks_norm"]
    study = create_study("own", storage=None, direction="minimize", epochs=2)
    optimize(study, task, n_trials=4, workers="inline", progress=False)
    assert {t.state.name for t in study.trials} <= {"COMPLETE", "PRUNED"}
    assert study.user_attrs["tricks:champion"]["alias"] == "best"


def test_plateau_works_beside_validation_in_every_other_epoch():
    task = module_task(Plain, epochs=4, trainer={"check_val_every_n_epoch": 2})
    result = train(task, ModuleTricks(schedule="plateau"), seed=0)
    assert (result.state, len(result.epochs)) == ("complete", 2), result.reason


class SparseWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(12, 8, sparse=True), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.head(self.words(inputs).mean(1))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "lion"])
def test_sparse_gradients_are_taken(optimizer):
    tokens, targets = torch.randint(0, 12, (24, 4)), torch.arange(24) % 3
    data = InMemoryData(Split(tokens, targets), Split(tokens, targets), batch_size=8)
    task = Task("sparse", data, lambda tricks: SparseWords(), epochs=1)
    tricks = Tricks(scaling="none", normalization="none", optimizer=optimizer)
    assert train(task, tricks, seed=0).state == "complete"


def test_settings_that_cannot_work_are_told_before_the_first_trial():
    with pytest.raises(InputError, match=r"pin clipping to {'kind': 'norm', 'theta': 0.5}"):
        module_task(Plain, trainer={"gradient_clip_val": 0.5})

    class Silent(Plain):
        validation_step = pl.LightningModule.validation_step

    with pytest.raises(InputError, match="Silent has no validation_step"):
        check(module_task(Silent), Space(ModuleTricks))


class Unfreeze(BaseFinetuning):
    """Trains the head first, and the body from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone[:4])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone[:4], optimizer, lr=0.01)


@pytest.mark.filterwarnings("ignore:The provided params to be frozen")
@pytest.mark.parametrize("optimizer", ["adam", "muon", "schedule_free", "sgd", "normalized_sgd"])
def test_layers_that_are_unfrozen_later_learn(optimizer):
    backbone = mlp()
    tricks = Tricks(
        optimizer=optimizer, normalization="none", initialization="keep", schedule="constant"
    )
    module = TricksModule(backbone, tricks)
    trainer(3, callbacks=[Unfreeze()]).fit(module, datamodule=small_data())
    assert not torch.equal(module.backbone[0].weight, backbone[0].weight)


def test_a_network_that_returns_a_dict_is_told_what_to_do():
    class Named(nn.Sequential):
        def forward(self, inputs):
            return {"logits": super().forward(inputs)}

    task = Task("dict", small_data(), lambda tricks: Named(nn.Linear(6, 3)))
    with pytest.raises(InputError, match=r"got dict\): return that from its forward, or put it into"):
        check(task, Space(Tricks))


class Ratio(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))
        self.log("val_acc", (self.answer(batch["inputs"]).argmax(1) == batch["labels"]).float().mean())


def test_the_validation_loss_is_guessed_from_what_is_logged():
    task = module_task(Ratio, monitor="val_acc", mode="max")
    assert task.plateau == "val_loss"
    assert "plateau" in check(task, Space(ModuleTricks)).space.domains["schedule"].extremes()


def test_one_forward_in_training_mode_is_no_training():
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    network(torch.randn(4, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TricksModule(network, Tricks())


class Probe(Plain):
    """Trains its head only: its optimizer leaves out the body."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.network[2].parameters(), 0.1)


def test_a_linear_probe_stays_one_in_all_trials():
    task = module_task(Probe)
    notes = check(task, Space(ModuleTricks)).notes
    assert any("no trial trains 2 parameters" in note for note in notes)
    for tricks in (ModuleTricks(), ModuleTricks(initialization="he_normal")):
        torch.manual_seed(0)
        module = build(task, tricks)
        before = module.network[0].weight.clone()
        trainer(1).fit(module, dicts(), dicts(seed=1))
        assert torch.equal(module.network[0].weight, before)
    module = build(task, ModuleTricks(transfer="all"))
    before = module.network[0].weight.clone()
    trainer(1).fit(module, dicts(), dicts(seed=1))
    assert not torch.equal(module.network[0].weight, before)


class NormedProbe(Plain):
    """A linear probe of a body with batch norm."""

    def __init__(self):
        super().__init__()
        self.network.insert(1, nn.BatchNorm1d(8))

    def configure_optimizers(self):
        return torch.optim.SGD(self.network[3].parameters(), 0.1)


@pytest.mark.parametrize("kind", ["own", "group", "none", "weight"])
def test_nothing_of_a_frozen_body_learns_whatever_normalizes_it(kind):
    task = module_task(NormedProbe)
    module = build(task, ModuleTricks(normalization=kind))
    before = {name: p.clone() for name, p in module.named_parameters()}
    trainer(1).fit(module, dicts(), dicts(seed=1))
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("network.3") for name in moved)


class Thawing(Plain):
    """Its optimizer holds all parameters; the body is frozen in the first epoch."""

    def __init__(self):
        super().__init__()
        self.network[0].requires_grad_(False)

    def on_train_epoch_start(self):
        self.network[0].requires_grad_(self.current_epoch > 0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon", "schedule_free"])
def test_what_a_module_unfreezes_itself_learns_in_all_trials(optimizer):
    task = module_task(Thawing)
    for epochs, learns in ((1, False), (2, True)):
        module = build(task, ModuleTricks(optimizer=optimizer))
        before = module.network[0].weight.clone()
        trainer(epochs).fit(module, dicts(), dicts(seed=1))
        assert torch.equal(module.network[0].weight, before) != learns


class UnfreezeModule(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer, lr=0.01)


@pytest.mark.filterwarnings("ignore:The provided params to be frozen")
@pytest.mark.parametrize("kind", [kind for stage, kind in VARIANTS if stage == "schedule"])
def test_every_schedule_takes_the_groups_that_a_callback_adds(kind):
    module = build(
        module_task(Plain, validation_loss="val_loss"),
        ModuleTricks(schedule=kind, weight_decay="none", optimizer={"kind": "sgd", "lr": 0.1}),
    )
    rates = []
    callback = pl.callbacks.LambdaCallback(
        on_train_batch_end=lambda runner, *_: rates.append(
            [g["lr"] for g in runner.optimizers[0].param_groups]
        )
    )
    trainer(4, callbacks=[UnfreezeModule(), callback]).fit(module, dicts(), dicts(seed=1))
    first, added = zip(*[each for each in rates if len(each) == 2], strict=True)
    assert np.array(added) * first[0] == pytest.approx(np.array(first) * added[0])  # one factor


class Stepping(Plain):
    """Steps its schedule and its optimizer by its own rules."""

    def __init__(self):
        super().__init__()
        self.called = set()

    def lr_scheduler_step(self, scheduler, metric):
        self.called.add("schedule")
        scheduler.step()

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        self.called.add("optimizer")
        optimizer.step(closure=optimizer_closure)


def test_rules_of_steps_are_run_in_yours_alone():
    task = module_task(Stepping)
    notes = check(task, Space(ModuleTricks)).notes
    assert any("lr_scheduler_step, optimizer_step" in note for note in notes)
    for tricks, expected in (
        (ModuleTricks.yours(), {"schedule", "optimizer"}),
        (ModuleTricks(), set()),
    ):
        module = task.module(tricks)
        runner = trainer(1)
        runner.fit(module, dicts(), dicts(seed=1))
        assert module.called == expected


def test_own_optimizer_and_schedule_go_with_tricks_that_touch_neither():
    tricks = ModuleTricks(optimizer="own", schedule="own", weight_decay="none", normalization="batch")
    module = with_tricks(Plain(), tricks, monitor="val_loss")
    runner = trainer(1)
    runner.fit(module, dicts(), dicts(seed=1))
    assert isinstance(runner.optimizers[0], torch.optim.SGD)
    with pytest.raises(InputError, match="optimizer and schedule must both be 'own'"):
        with_tricks(Plain(), ModuleTricks(optimizer="own", weight_decay="none"))
    with pytest.raises(InputError, match="weight_decay 'decoupled' would act on nothing"):
        with_tricks(Plain(), ModuleTricks(optimizer="own", schedule="own"))
