"""The checks before the first trial, and what they leave out of the search."""

import threading
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchmetrics
from conftest import mlp, optimize, samples, small_data, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import (
    InMemoryData,
    InputError,
    ModuleTricks,
    Space,
    Split,
    Task,
    Tricks,
    TricksModule,
    create_study,
    train,
    with_tricks,
)
from lightning_tricks.search.outcomes import Outcome
from lightning_tricks.task.checks import check

pytestmark = pytest.mark.usefixtures("with_store")


class Sentences(nn.Module):
    """A classifier of sequences, as people write it."""

    def __init__(self):
        super().__init__()
        self.reader = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs):
        return self.head(self.reader(inputs[:, None])[0][:, -1])


NETWORKS = {
    "an LSTM": (Sentences, ["batch", "layer", "group"]),
    "one layer": (lambda: nn.Linear(6, 3), ["batch", "layer", "group"]),
    "two layers": (lambda: mlp(depth=1), []),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_finds_nothing_to_act_on_is_left_out_and_told_in_a_line(name):
    build, left_out = NETWORKS[name]
    checked = check(Task("net", small_data(), lambda tricks: build()), Space(Tricks))
    kinds = checked.space.domains["normalization"].extremes()
    assert set(kinds) == {"none", "batch", "layer", "group", "weight"} - set(left_out)
    if not left_out:
        assert checked.notes == []
        return
    (note,) = checked.notes
    assert note.startswith("left out of the search: normalization batch, layer, group; ")
    assert ("dropout dropout" in note) == (name == "one layer")
    assert "muon" in note
    assert "\n" not in note
    assert checked.space.nearest(Tricks()).normalization.kind == "none"


@pytest.mark.parametrize("first", [0, 1, 2])
def test_labels_that_do_not_begin_at_zero_are_told(first):
    data = small_data()
    splits = [Split(split.inputs, split.targets + first) for split in data.splits.values()]
    shifted = InMemoryData(*splits, batch_size=8)
    notes = check(Task("net", shifted, lambda tricks: mlp(classes=3 + first)), Space(Tricks)).notes
    said = [note for note in notes if "no training sample has label 0" in note]
    assert len(said) == (first > 0)
    assert all(
        f"one of its {3 + first} outputs" in note and f"begin at {first}" in note for note in said
    )


def test_a_space_of_one_recipe_is_told():
    one = Space(Tricks).pin({stage: getattr(Tricks(), stage) for stage in Tricks.model_fields})
    notes = check(Task("net", small_data(), lambda tricks: mlp()), one).notes
    assert any("nothing is searched" in note for note in notes)


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val_loss", "min"), ("val/RMSE", "min"), ("val/accuracy", "max"), ("glossary", "max")],
)
def test_less_of_a_loss_is_better_unless_told_otherwise(monitor, mode):
    named = Task("net", small_data(), lambda tricks: mlp(), monitor=monitor)
    assert named.mode == mode
    assert replace(named, mode="max").mode == "max"


def test_what_is_pinned_is_never_left_out():
    task = Task("net", small_data(), lambda tricks: nn.Linear(6, 3))
    with pytest.raises(InputError, match=r"found nothing to act on.*leave 'layer' out of normalization"):
        check(task, Space(Tricks).pin({"normalization": "layer"}))
    with pytest.raises(InputError, match="normalization"):
        check(task, Space(Tricks).narrow({"normalization": ["layer", "batch"]}))


@pytest.mark.usefixtures("without_mlflow")
def test_a_study_of_a_network_that_few_tricks_act_on(capsys):
    task = Task("net", small_data(), lambda tricks: Sentences(), epochs=2)
    study = create_study("net", storage=None, epochs=2)
    optimize(study, task, n_trials=4, workers="inline")
    assert [t.state.name for t in study.trials if t.state.name == "FAIL"] == []
    assert "left out of the search: normalization batch, layer, group" in capsys.readouterr().err
    assert {t.params["normalization"] for t in study.trials} <= {"none", "weight"}


class Splits(pl.LightningDataModule):
    """Has its own `splits`, which means something else."""

    def __init__(self):
        super().__init__()
        self.splits = ["train", "validation"]

    def train_dataloader(self):
        return small_data().train_dataloader()

    def val_dataloader(self):
        return small_data().val_dataloader()


@pytest.mark.usefixtures("without_mlflow")
def test_a_data_module_may_call_its_attributes_what_it_likes():
    task = Task("splits", Splits(), lambda tricks: mlp(), epochs=1)
    assert task.samples() is None
    assert not task.tests()
    study = create_study("splits", storage=None, epochs=1)
    optimize(study, task, n_trials=1, workers="inline", progress=False)
    assert study.user_attrs["tricks:champion"]["trial"] == 0
    assert not any(study.user_attrs["tricks:tests"].values())


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = mlp()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        outputs = self.network(batch[0])
        self.log("own_accuracy", (outputs.argmax(1) == batch[1]).float().mean())
        self.log("own_loss", F.cross_entropy(outputs, batch[1]))


def own_task(**changes):
    return Task(
        **{
            "name": "own",
            "data": small_data(),
            "backbone": lambda tricks: Own(),
            "tricks": ModuleTricks,
            "monitor": "own_accuracy",
            "epochs": 2,
            **changes,
        }
    )


@pytest.mark.usefixtures("without_mlflow")
def test_a_test_split_that_cannot_be_used_is_said_once(capsys):
    judged = optimize(
        create_study(own_task(), storage=None), own_task(), n_trials=3, finalists=1, seeds=3
    )
    assert judged.verdict is not None
    errors = capsys.readouterr().err
    assert errors.count("test split") == errors.count("no test_step") == 1
    optimize(create_study(own_task(), name="search", storage=None), own_task(), n_trials=2)
    assert "no test score" not in capsys.readouterr().err


@pytest.mark.usefixtures("without_mlflow")
def test_the_plateau_schedule_looks_at_the_loss_that_the_task_names():
    task = own_task(validation_loss="own_loss")
    (note,) = check(task, Space(ModuleTricks)).notes
    assert note.startswith("the test split is not used, because Own has no test_step")
    study = create_study("own", storage=None, epochs=2)
    plateau = Space(ModuleTricks).pin({"schedule": "plateau"})
    optimize(study, task, n_trials=3, space=plateau, workers="inline", progress=False)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3
    last = Outcome.read(study.trials[1]).epochs[-1]["metrics"]
    assert last["val/loss"] == last["own_loss"]  # val/loss breaks ties of the score


def test_without_that_loss_plateau_is_left_out_and_an_error_only_if_pinned():
    checked = check(own_task(), Space(ModuleTricks))
    assert "plateau" not in checked.space.domains["schedule"].extremes()
    assert any("validation_loss 'val/loss' is never logged" in note for note in checked.notes)
    with pytest.raises(InputError, match=r"validation_loss 'val/loss' is never logged.*own_loss"):
        check(own_task(), Space(ModuleTricks).pin({"schedule": "plateau"}))
    with pytest.raises(InputError, match=r"validation_loss 'val/los' is never logged"):
        task = Task("net", small_data(), lambda tricks: mlp(), validation_loss="val/los")
        check(task, Space(Tricks).pin({"schedule": "plateau"}))


def test_a_users_module_is_rehearsed_on_a_batch():
    class Wrong(Own):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("no")

    with pytest.raises(InputError, match="a first batch cannot be trained: RuntimeError: no"):
        check(own_task(backbone=lambda tricks: Wrong()), Space(ModuleTricks))
    with pytest.raises(InputError, match=r"monitor 'val/acc' is never logged; must be one of.*own_loss"):
        check(own_task(monitor="val/acc"), Space(ModuleTricks))


def test_batches_too_small_for_the_devices_are_an_error_before_the_first_trial():
    task = Task("small", small_data(batch_size=1), lambda tricks: mlp())
    with pytest.raises(InputError, match=r"each of 2 processes needs a sample.*smallest has 1"):
        check(task, Space(Tricks), devices=2)
    for count, batch in ((3, 8), (24, 2), (24, 7)):
        data = InMemoryData(*[(torch.randn(count, 6), torch.arange(count) % 3)] * 2, batch_size=batch)
        check(Task("small", data, lambda tricks: mlp()), Space(Tricks), devices=2)
        for batches in (data.train_dataloader(), data.val_dataloader()):
            for share in ((0, 2), (1, 2)):
                batches.share = share
                assert all(len(inputs) for inputs, _ in batches)


def test_either_package_of_lightning_serves():
    import lightning.pytorch as other

    class Theirs(other.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = mlp()

        def forward(self, inputs):
            return self.network(inputs)

    module = with_tricks(Theirs(), ModuleTricks())
    assert isinstance(module, other.LightningModule)
    assert not isinstance(module, pl.LightningModule)
    callbacks = with_tricks(Theirs(), ModuleTricks(averaging={"kind": "ema"})).configure_callbacks()
    assert all(isinstance(callback, other.Callback) for callback in callbacks)


def test_two_packages_of_lightning_are_told_in_a_line():
    import lightning.pytorch as other

    class Theirs(other.LightningDataModule):
        def train_dataloader(self):
            return small_data().train_dataloader()

        val_dataloader = train_dataloader

    message = r"the module is of pytorch_lightning, and the data module \(Theirs\) of lightning.pytorch"
    with pytest.raises(InputError, match=message):
        check(own_task(data=Theirs()), Space(ModuleTricks))
    task = Task("plain", Theirs(), lambda tricks: mlp(), epochs=1)
    assert train(task, Tricks(), seed=0).state == "complete"


class Tokens(nn.Module):
    """Has an embedding, as networks for text do."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(20, 8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, tokens):
        self.seen = tokens
        return self.head(self.embedding(tokens))


def test_tokens_reach_an_embedding_as_they_are():
    tokens, targets = torch.randint(20, (40, 5)), torch.arange(40) % 3
    data = InMemoryData((tokens, targets), (tokens, targets), batch_size=8)
    checked = check(Task("tokens", data, lambda tricks: Tokens()), Space(Tricks))
    assert checked.space.domains["scaling"].extremes() == ("none",)
    assert "scaling would change the tokens" in checked.notes[0]
    module = TricksModule(Tokens(), Tricks(scaling="none"))
    fit = trainer(1)
    fit.fit(module, datamodule=data)
    assert module.backbone.seen.dtype == torch.int64
    with pytest.raises(InputError, match="set scaling to 'none'"):
        trainer(1).fit(TricksModule(Tokens(), Tricks()), datamodule=data)


def test_numbers_to_predict_have_no_accuracy():
    inputs = torch.randn(40, 6)
    data = InMemoryData.from_arrays(inputs, inputs.sum(1), regression=True)
    task = Task("sums", data, lambda tricks: mlp(classes=1), loss=F.mse_loss)
    with pytest.raises(InputError, match=r"numbers to predict have no accuracy.*metrics=\{\}"):
        check(task, Space(Tricks))


@pytest.mark.parametrize("loss", [F.cross_entropy, F.mse_loss])
def test_what_numbers_to_predict_need_is_said_at_once(loss):
    inputs = torch.randn(40, 6)
    data = InMemoryData.from_arrays(inputs, inputs.sum(1), regression=True)
    task = Task("sums", data, lambda tricks: mlp(classes=1), loss=loss)
    with pytest.raises(InputError, match=r"metrics=\{\}, monitor='val/loss'"):
        check(task, Space(Tricks))


@pytest.mark.parametrize(
    ("scale", "shift", "noted"),
    [(1, 0, False), (3, 5, False), (1e5, 5e5, True), (1, 300, True), (1e-4, 0, True), (0, 0, False)],
)
@pytest.mark.parametrize("loaders", [False, True])
def test_targets_that_networks_hardly_learn_are_noted(scale, shift, noted, loaders):
    inputs = torch.randn(200, 6)
    data = InMemoryData.from_arrays(inputs, scale * inputs.sum(1) + shift, regression=True)
    if loaders:
        data = (data.train_dataloader(), data.val_dataloader())
    settings = {"loss": F.mse_loss, "metrics": {}, "monitor": "val/loss"}
    task = Task("sums", data, lambda tricks: mlp(classes=1), **settings)
    notes = check(task, Space(Tricks)).notes
    assert any("scale the targets first" in note for note in notes) == noted


def test_labels_and_probabilities_are_no_unscaled_targets():
    inputs = torch.randn(60, 6)
    data = InMemoryData.from_arrays(inputs, (inputs[:, :3] > 1.5).float(), regression=True)
    settings = {"loss": F.binary_cross_entropy_with_logits, "metrics": {}, "monitor": "val/loss"}
    task = Task("labels", data, lambda tricks: mlp(), **settings)
    assert not any("targets" in note for note in check(task, Space(Tricks)).notes)


def test_if_nothing_is_left_of_what_is_searched_it_is_an_error():
    space = Space(Tricks).only("smoothing").narrow({"smoothing": ["none", "label_smoothing"]})
    inputs, _ = samples(60, 6)
    numbers = InMemoryData.from_arrays(inputs, inputs[:, :3], regression=True)
    settings = {"loss": F.mse_loss, "metrics": {}, "monitor": "val/loss"}
    task = Task("t", numbers, lambda tricks: mlp(), **settings)
    with pytest.raises(InputError, match="nothing is left to search: left out of the search: smoothing"):
        check(task, space)


def test_the_plateau_schedule_watches_no_accuracy():
    task = Task("t", small_data(), lambda tricks: mlp(), validation_loss="val/accuracy")
    notes = check(task, Space(Tricks)).notes
    assert any("plateau (validation_loss 'val/accuracy' is no" in note for note in notes)


def test_a_loss_may_take_several_outputs_per_number():
    inputs, _ = samples(60, 6)
    share = torch.tensor([0.1, 0.5, 0.9])

    def pinball(outputs, targets):
        return torch.maximum(share * (targets - outputs), (share - 1) * (targets - outputs)).mean()

    data = InMemoryData.from_arrays(inputs, inputs[:, :1], regression=True)
    settings = {"metrics": {}, "monitor": "val/loss", "epochs": 1}
    task = Task("quantiles", data, lambda tricks: mlp(), loss=pinball, **settings)
    check(task, Space(Tricks))
    mixing = replace(task, backbone=lambda tricks: nn.Sequential(mlp(classes=1), nn.Flatten(0)))
    with pytest.raises(InputError, match="compares each output with all targets"):
        check(replace(mixing, loss=lambda o, t: ((o - t) ** 2).mean()), Space(Tricks))


def test_soft_labels_are_no_numbers_to_predict():
    inputs, labels = samples(60, 6)
    soft = F.one_hot(labels, 3).float()
    data = InMemoryData.from_arrays(inputs, soft, regression=True)
    with pytest.raises(InputError, match=r"one-hot or soft labels give class numbers"):
        check(Task("soft", data, lambda tricks: mlp()), Space(Tricks))
    settings = {"loss": nn.CrossEntropyLoss(), "metrics": {}, "monitor": "val/loss"}
    check(Task("soft", data, lambda tricks: mlp(), **settings), Space(Tricks))


def test_short_integers_are_no_class_numbers():
    inputs, labels = samples(60, 6)
    loader = DataLoader(TensorDataset(inputs, labels.int()), batch_size=20)
    with pytest.raises(InputError, match=r"64-bit integers: targets\.long\(\) \(got torch\.int32\)"):
        check(Task("short", (loader, loader), lambda tricks: mlp()), Space(Tricks))


def test_a_backbone_that_is_no_network_is_told():
    with pytest.raises(InputError, match=r"must be an nn.Module \(got str\)"):
        TricksModule("x", Tricks())


@pytest.mark.parametrize(
    ("monitor", "mode", "noted"),
    [
        *[(f"val_{n}", "min", False) for n in ("logloss", "log_loss", "mape", "rmsle", "wer", "bce")],
        *[(f"val_{n}", "min", False) for n in ("neg_log_likelihood", "incorrect", "neg_elbo")],
        *[(f"val_{n}", "max", False) for n in ("neg_log_loss", "neg_mean_squared_error")],
        *[(f"val_{n}", "max", True) for n in ("accuracy_gap", "acc_std", "error_free_rate")],
        *[(name, "min", False) for name in ("valloss", "val/brier", "val/fid", "val_err@1", "rmse")],
        *[
            (f"val_{n}", "max", False)
            for n in ("acc", "acc@1", "f1", "auroc", "mAP", "r2", "top1", "iou")
        ],
        ("val_quality", "max", True),
    ],
)
def test_the_direction_follows_from_the_monitors_name_or_a_note_says_so(monitor, mode, noted):
    name = monitor.removeprefix("val/").removeprefix("val_")
    metrics = {name: lambda outputs, targets: outputs.mean()}
    task = Task("t", small_data(), lambda tricks: mlp(), monitor=f"val/{name}", metrics=metrics)
    assert Task("t", small_data(), lambda tricks: mlp(), monitor=monitor).mode == mode
    assert task.mode == mode
    kinds = {stage: getattr(Tricks.plain(), stage).kind for stage in Tricks.model_fields}
    notes = check(task, Space(Tricks).pin(kinds)).notes
    assert any("is taken to be better" in note for note in notes) == noted


def test_the_direction_of_a_torchmetric_is_its_own():
    metrics = {"quality": torchmetrics.MeanAbsolutePercentageError()}
    task = Task("t", small_data(), lambda tricks: mlp(), monitor="val/quality", metrics=metrics)
    assert task.mode == "min"
    higher = torchmetrics.classification.MulticlassAccuracy(3)
    task = Task(
        "t", small_data(), lambda tricks: mlp(), monitor="val/quality", metrics={"quality": higher}
    )
    assert task.mode == "max"
    assert not any("is taken to be better" in note for note in check(task, Space(Tricks)).notes)


def test_a_training_loader_without_batches_is_refused():
    train, validation = (TensorDataset(torch.randn(6, 6), torch.arange(6) % 3) for _ in range(2))
    loaders = DataLoader(train, 8, drop_last=True), DataLoader(validation, 6)
    with pytest.raises(InputError, match="the training loader has no batches"):
        check(Task("t", loaders, lambda tricks: mlp()), Space(Tricks))


def test_a_loss_with_parameters_is_refused_because_nothing_would_train_them():
    class Weighted(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

    task = Task("t", small_data(), lambda tricks: mlp(), loss=Weighted())
    with pytest.raises(InputError, match="the loss Weighted has parameters"):
        check(task, Space(Tricks))


@pytest.mark.parametrize(
    ("interval", "ends"), [(0.5, False), (2, False), (5, True), (1, True), (1.0, True), (0.2, True)]
)
@pytest.mark.parametrize("loaders", [False, True])
def test_validation_that_does_not_end_with_an_epoch_is_refused(interval, ends, loaders):
    data = InMemoryData.from_arrays(torch.randn(90, 6), torch.arange(90) % 3, batch_size=12)  # five
    data = (data.train_dataloader(), data.val_dataloader()) if loaders else data
    task = Task("t", data, lambda tricks: mlp(), trainer={"val_check_interval": interval}, epochs=1)
    if ends:
        check(task, Space(Tricks))
        assert train(task, Tricks(), 0).state == "complete"
    else:
        with pytest.raises(InputError, match="leave val_check_interval out of trainer"):
            check(task, Space(Tricks))


def squared(outputs, targets):
    return (outputs - targets.float()).square().mean()


@pytest.mark.parametrize(
    ("loss", "broadcasts"),
    [
        (squared, True),
        (lambda outputs, targets: squared(outputs[:, 0], targets), False),
        (lambda outputs, targets: outputs.square().mean(), False),  # of a network that returns its loss
    ],
    ids=["all targets", "its target", "no target"],
)
def test_a_loss_that_compares_each_output_with_all_targets_is_refused(loss, broadcasts):
    samples = torch.utils.data.TensorDataset(torch.randn(40, 6), torch.arange(40) % 7)
    loaders = [torch.utils.data.DataLoader(samples, 20) for _ in range(2)]
    settings = {"loss": loss, "metrics": {}, "monitor": "val/loss"}
    task = Task("t", loaders, lambda tricks: mlp(classes=1), **settings)
    if broadcasts:
        with pytest.raises(InputError, match="compares each output with all targets"):
            check(task, Space(Tricks))
    else:
        check(task, Space(Tricks))


class Categories(nn.Module):
    """Looks up a column of codes of a table of floating-point numbers; or a position, if it does not."""

    def __init__(self, codes):
        super().__init__()
        self.codes, self.embedding, self.head = codes, nn.Embedding(5, 4), nn.Linear(9, 3)

    def forward(self, table):
        codes = table[:, 0].long() if self.codes else torch.zeros(len(table), dtype=torch.long)
        return self.head(torch.cat([self.embedding(codes), table[:, 1:]], 1))


class Table(Categories):
    """Looks up its codes in a parameter."""

    def __init__(self, codes):
        super().__init__(codes)
        self.embedding = nn.Identity()
        self.rows = nn.Parameter(torch.randn(5, 4))

    def forward(self, table):
        codes = table[:, 0].int() if self.codes else torch.zeros(len(table), dtype=torch.int)
        return self.head(torch.cat([self.rows[codes], table[:, 1:]], 1))


@pytest.mark.parametrize("network", [Categories, Table])
@pytest.mark.parametrize("codes", [True, False])
def test_category_codes_in_a_table_of_numbers_are_neither_scaled_nor_mixed(codes, network):
    table = torch.cat([torch.arange(60)[:, None] % 5, torch.randn(60, 5)], 1)
    data = InMemoryData.from_arrays(table, torch.arange(60) % 3)
    wide = Space(Tricks).narrow({"mixing": ["none", "mixup"]})
    space = check(Task("t", data, lambda tricks: network(codes)), wide).space
    for stage in ("scaling", "mixing"):
        assert (space.domains[stage].extremes() == ("none",)) == codes


def test_clipping_by_layer_needs_a_hidden_layer():
    data, space = small_data(), Space(Tricks).narrow({"clipping": ["norm", "adaptive"]})
    only = check(Task("t", data, lambda tricks: nn.Linear(6, 3)), space)
    assert only.space.domains["clipping"].extremes() == ("norm",)
    assert any("clipping 'adaptive' found nothing to act on" in note for note in only.notes)
    both = check(Task("t", data, lambda tricks: mlp()), space).space
    assert both.domains["clipping"].extremes() == ("norm", "adaptive")


def test_an_optimizer_that_shows_an_average_is_rehearsed_with_a_validation():
    class Locked(Own):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()
            self.network = nn.Sequential(nn.BatchNorm1d(6), mlp())

    task = Task("t", small_data(), lambda tricks: Locked(), tricks=ModuleTricks, monitor="own_loss")
    space = check(task, Space(ModuleTricks)).space
    assert "schedule_free" not in space.domains["optimizer"].extremes()
    assert "adam" in space.domains["optimizer"].extremes()
