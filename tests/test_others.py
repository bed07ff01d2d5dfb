"""Studies that hold the user's own trials, waiting or finished."""

from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import mlp, optimize, small_data
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.trial import TrialState, create_trial
from optuna_dashboard._note import get_note_from_system_attrs
from test_study import children, store

from lightning_tricks import InputError, Space, Task, Tricks, create_study
from lightning_tricks.search.sampling.samplers import SAMPLERS
from lightning_tricks.search.sampling.trick_sampler import TrickSampler
from lightning_tricks.search.studies import finished
from lightning_tricks.tracking.agreement import differences

pytestmark = pytest.mark.usefixtures("with_store")


def task():
    return Task("tiny", small_data(), lambda tricks: mlp(), epochs=1)


def narrow():
    """Return a space with little to search."""
    off = {name: getattr(Tricks.plain(), name).kind for name in Tricks.model_fields}
    kinds = ["sgd", "adam"]
    return (
        Space(Tricks)
        .pin({k: v for k, v in off.items() if k != "optimizer"})
        .narrow({"optimizer": kinds})
    )


def test_a_trial_that_was_enqueued_first_is_trained_first():
    study = create_study("tiny", storage=None)
    study.enqueue_trial(
        {"optimizer": "adam", "optimizer.adam.lr": 0.004}, user_attrs={"baseline": "mine"}
    )
    study.set_user_attr("baseline", "mine too")
    optimize(study, task(), n_trials=4, space=narrow(), progress=False)
    assert study.trials[0].params["optimizer.adam.lr"] == 0.004
    assert {t.user_attrs.get("tricks:role") for t in study.trials} >= {"baseline", "plain"}
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert differences(study, task(), store()) == []
    study.enqueue_trial({"optimizer": "sgd", "optimizer.sgd.lr": 0.05})
    optimize(study, task(), n_trials=5, space=narrow(), progress=False)
    assert study.trials[-1].params["optimizer.sgd.lr"] == 0.05


def test_an_enqueued_trial_that_does_not_fit_is_named_and_the_study_continues_without_it():
    study = create_study("tiny", storage=None)
    study.enqueue_trial({"optimizer": "sdg"})
    with pytest.raises(InputError, match=r"the enqueued trial 0 does not fit the space: 'sdg' not in"):
        optimize(study, task(), n_trials=3, space=narrow(), progress=False)
    optimize(study, task(), n_trials=3, space=narrow(), progress=False)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, *[TrialState.COMPLETE] * 3]
    assert differences(study, task(), store()) == []


def told(better):
    """Return a study that was told which optimizer is better, in a given way."""
    study, space = create_study(f"{better} is better", storage=None, seed=1), narrow()
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(24):
        trial = asked.ask()
        kind = space.suggest(trial).optimizer.kind
        study.add_trial(
            create_trial(
                params=trial.params, distributions=trial.distributions, value=float(kind == better)
            )
        )
    return study


def test_finished_trials_of_the_same_parameters_inform_the_sampler():
    counts = {}
    for better in ("sgd", "adam"):
        study = told(better)
        optimize(study, task(), n_trials=12, space=narrow(), progress=False)
        own = finished(study)
        assert len(own) == 12
        counts[better] = Counter(t.params["optimizer"] for t in own[2:])["adam"]
        assert study.user_attrs["tricks:champion"]["trial"] in {trial.number for trial in own}
        assert differences(study, task(), store()) == []
    assert counts["adam"] > counts["sgd"]


def test_only_what_was_trained_here_is_in_mlflow():
    study = told("sgd")
    optimize(study, task(), n_trials=3, space=narrow(), progress=False)
    assert sorted(children(name="sgd is better")[1]) == [24, 25, 26]


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("kind", ["another parameter", "another value", "running"])
def test_trials_of_another_program_are_refused(kind):
    study = create_study("tiny", storage=None)
    if kind == "running":
        study.ask()
    else:
        name = "x" if kind == "another parameter" else "optimizer"
        choice = optuna.distributions.CategoricalDistribution(["other", "sgd"])
        study.add_trial(create_trial(params={name: "other"}, distributions={name: choice}, value=1.0))
    with pytest.raises(InputError, match="holds 1 trials of another program, such as trial 0"):
        optimize(study, task(), n_trials=3, space=narrow(), progress=False)


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.filterwarnings("ignore:Some regimes")  # importances of so few trials say little
def test_optunas_own_ways_of_looking_at_a_study_work():
    study = create_study("tiny", storage="optuna.journal")
    optimize(study, task(), n_trials=6, space=narrow(), progress=False)
    assert study.best_params == study.best_trial.params
    assert len(study.trials_dataframe()) == len(study.trials)
    for plot in ("plot_optimization_history", "plot_param_importances", "plot_intermediate_values"):
        assert getattr(optuna.visualization.matplotlib, plot)(study) is not None
    optuna.copy_study(
        from_study_name="tiny", from_storage=study._storage, to_storage="sqlite:///copy.db"
    )
    copied = create_study("tiny", storage="sqlite:///copy.db")
    optimize(copied, task(), n_trials=7, space=narrow(), progress=False)
    assert [t.value for t in copied.trials[:6]] == [t.value for t in study.trials]


@pytest.mark.usefixtures("without_mlflow")
def test_callbacks_are_called_after_each_trial_and_may_end_the_search():
    seen = []

    def callback(study, trial):
        seen.append((study.study_name, trial.number, trial.state))
        if len(seen) == 3:
            study.stop()

    study = create_study("tiny", storage=None)
    optimize(study, task(), n_trials=9, space=narrow(), callbacks=[callback], progress=False)
    assert seen == [("tiny", number, TrialState.COMPLETE) for number in range(3)]

    def failing(study, trial):
        raise KeyError("x")

    with pytest.raises(InputError, match=r"a callback of the study fails: KeyError: 'x' \(test_others"):
        optimize(study, task(), n_trials=9, space=narrow(), callbacks=[failing], progress=False)
    assert len(finished(study)) == 4  # the trial is kept


class Slow(optuna.samplers.RandomSampler):
    """A user's own sampler."""


@pytest.mark.usefixtures("without_mlflow")
@pytest.mark.parametrize("make", [create_study, None])
def test_any_sampler_object_goes_in(make):
    if make is None:
        study = optuna.create_study(study_name="tiny", sampler=Slow(), direction="maximize")
    else:
        study = create_study("tiny", storage=None, sampler=Slow())
    optimize(study, task(), n_trials=3, space=narrow(), progress=False)
    assert isinstance(study.sampler, Slow)
    assert len(finished(study)) == 3


def test_the_names_of_samplers_say_whose_they_are():
    assert isinstance(SAMPLERS["tpe"](0)._make(0), optuna.samplers.TPESampler)
    assert isinstance(create_study("tiny", storage=None).sampler, TrickSampler)
    with pytest.raises(InputError, match="sampler must be one of"):
        create_study("tiny", storage=None, sampler="tea")


def test_the_dashboard_shows_what_mlflow_shows():
    study = create_study("tiny", storage="optuna.journal")
    optimize(study, task(), n_trials=3, space=narrow(), finalists=1, seeds=3, progress=False)
    assert study.metric_names == ["val/accuracy"]
    attributes = study._storage.get_study_system_attrs(study._study_id)
    note = get_note_from_system_attrs(attributes, None)["body"]
    assert study.user_attrs["tricks:verdict"]["label"] in note
    trial = study.trials[1]
    told = get_note_from_system_attrs(attributes, trial._trial_id)["body"]
    assert "Plain." in told
    for _ in range(2):
        (artifact,) = get_all_artifact_meta(study)
        store = FileSystemArtifactStore("checkpoints/tiny/artifacts")
        with store.open_reader(artifact.artifact_id) as report:
            assert b"<h1>Study tiny</h1>" in report.read()
        optimize(study, task(), n_trials=3, space=narrow(), finalists=1, seeds=3, progress=False)


def test_a_name_that_cannot_be_one_leaves_no_study():
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(InputError, match="a name must be"):
        create_study("exp/1", storage=storage)
    assert not storage.get_all_studies()


def test_numbers_of_numpy_and_paths_are_taken():
    two = np.int64(2)
    some = Task("tiny", small_data(), lambda tricks: mlp(), epochs=np.int32(1), repeats=np.int64(1))
    study = create_study("tiny", storage=None)
    optimize(study, some, n_trials=two, seed=np.int8(3), tracking_uri=Path("mlflow.db"), progress=False)
    assert len(finished(study)) == 2
    assert sorted(children()[1]) == [0, 1]
