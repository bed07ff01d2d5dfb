"""A study's identity: everything that makes scores comparable, and nothing else."""

import functools
import linecache

import pytest
import torch
import torch.nn.functional as F
from conftest import mlp, optimize, samples, small_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_tricks import InMemoryData, InputError, Space, Task, Tricks, create_study
from lightning_tricks.search.identity import claim
from lightning_tricks.task.fingerprint import _source, of_function

pytestmark = pytest.mark.usefixtures("with_store")


def network(tricks):
    return mlp()


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets)


def task(**changes):
    return Task(
        **{"name": "tiny", "data": small_data(), "backbone": network, "loss": loss, "epochs": 2}
        | changes
    )


def other_loss(outputs, targets):
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def wider(tricks):
    return mlp(width=16)


def loaders(**options):
    train, validation = (TensorDataset(*samples(24, 6, seed=seed)) for seed in (0, 1))
    return DataLoader(train, batch_size=8), DataLoader(validation, batch_size=8, **options)


def changed_data():
    data = small_data()
    data.splits["train"].inputs[3] += 1
    return data


CHANGES = {
    "data": (
        {"data": changed_data()},
        r"other settings: data \(train: float32 \(24, 6\), int64 \(24,\) \w+ th",
    ),
    "batch size": (
        {"data": small_data(batch_size=4)},
        r"other settings: data \(batch_size: 8 there, 4 now\)",
    ),
    "loss": ({"loss": other_loss}, r"other settings: loss \(loss \w+ there, other_loss \w+ now\)"),
    "backbone": ({"backbone": wider}, r"other settings: backbone \(network"),
    "metrics": ({"metrics": {"accuracy": lambda y, t: (y.argmax(1) == t).sum() / len(t)}}, "metrics"),
    "precision": (
        {"trainer": {"precision": "64-true"}},
        r"trainer \(precision: nothing there, '64",
    ),
    "accumulation": ({"trainer": {"accumulate_grad_batches": 2}}, "other settings: trainer"),
}


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_task_is_refused_until_it_is_said_to_be_the_same(change):
    study = create_study("tiny", storage=None, epochs=2)
    claim(study, task(), Space(Tricks), 0)
    changes, message = CHANGES[change]
    with pytest.raises(InputError, match=f"{message}.*--same-task"):
        claim(study, task(**changes), Space(Tricks), 0)
    claim(study, task(**changes), Space(Tricks), 0, same_task=True)
    claim(study, task(**changes), Space(Tricks), 0)  # it has been taken over


@pytest.mark.usefixtures("without_mlflow")
def test_a_study_says_what_changed_and_goes_on_if_asked_to():
    study = create_study("tiny", storage=None, epochs=2)
    optimize(study, task(), n_trials=1, progress=False)
    with pytest.raises(InputError, match=r"other settings: data \(batch_size: 8 there, 4 now\)"):
        optimize(study, task(data=small_data(batch_size=4)), n_trials=2, progress=False)
    changed = task(data=small_data(batch_size=4))
    optimize(study, changed, n_trials=2, same_task=True, progress=False)
    assert len(study.trials) == 2


def test_what_is_made_anew_alike_is_the_same():
    assert task().fingerprint == task().fingerprint
    assert (
        task(trainer={"accelerator": "cpu"}).fingerprint
        == task(trainer={"accelerator": "auto"}).fingerprint
    )
    assert task(epochs=5).fingerprint == task().fingerprint  # the epochs are compared separately


def test_loaders_that_shuffle_or_not_are_the_same_as_themselves():
    for options in ({}, {"shuffle": True}):
        assert task(data=loaders(**options)).fingerprint == task(data=loaders(**options)).fingerprint
    other = (loaders()[0], DataLoader(TensorDataset(*samples(24, 6, seed=5)), batch_size=8))
    assert task(data=loaders()).fingerprint != task(data=other).fingerprint


def test_comments_and_layout_of_a_function_do_not_count_but_what_it_holds_does():
    def one(width):
        def build(tricks):
            return nn.Linear(6, width)

        return build

    def another(width):
        def build(tricks):
            # the same
            return nn.Linear(
                6,
                width,
            )

        return build

    digest = of_function(one(3)).split()[1]
    assert of_function(another(3)).split()[1] == digest
    assert of_function(one(4)).split()[1] != digest
    assert of_function(functools.partial(loss, 3)) != of_function(functools.partial(loss, 4))


def test_functions_of_installed_packages_are_known_by_their_names():
    assert of_function(F.cross_entropy) == "torch.nn.functional.cross_entropy"
    assert of_function(nn.MSELoss()).startswith("torch.nn.modules.loss.MSELoss(")


def test_taking_it_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    assert task().fingerprint
    assert torch.equal(torch.get_rng_state(), state)


def test_of_large_data_a_thousand_samples_are_looked_at():
    inputs, targets = samples(100_000, 2)
    data = InMemoryData((inputs, targets), (inputs[:9], targets[:9]))
    other = InMemoryData((inputs[:-1], targets[:-1]), (inputs[:9], targets[:9]))
    assert (
        task(data=data).fingerprint["data"]["train"].startswith("float32 (100000, 2), int64 (100000,)")
    )
    assert task(data=data).fingerprint != task(data=other).fingerprint


FACTOR = 1.0


def helper(value):
    return value * FACTOR


def leaning(outputs, targets):
    return helper(F.cross_entropy(outputs, targets))


def test_what_a_function_takes_from_its_module_counts(monkeypatch):
    before = of_function(leaning)
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert of_function(leaning) != before
    monkeypatch.setitem(globals(), "helper", other_loss)
    assert of_function(leaning) != before


def test_objects_are_told_apart_by_their_plain_values():
    assert of_function(nn.CrossEntropyLoss()) == of_function(nn.CrossEntropyLoss())
    assert of_function(nn.CrossEntropyLoss()) != of_function(nn.CrossEntropyLoss(label_smoothing=0.9))


def test_a_function_whose_file_was_edited_since_has_no_source(tmp_path, monkeypatch):
    path = tmp_path / "edited_module.py"
    path.write_text("x = 1\n\n\ndef loss(outputs, targets):\n    return (outputs - targets).mean()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import edited_module

    path.write_text("x = 1\n\n\n    '''\n  (((\n")
    linecache.checkcache()
    assert _source(edited_module.loss) == ""
