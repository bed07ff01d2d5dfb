"""Trials that pause and go on: they end as if they had not, and one in six goes on."""

import itertools
import math
import re
from datetime import datetime

import optuna
import pytest
from conftest import mlp, optimize, small_data
from hypothesis import given
from hypothesis import strategies as some
from mlflow.tracking import MlflowClient
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_tricks import Observer, Task, Tricks, create_study
from lightning_tricks.search import keys
from lightning_tricks.search.promotion import GOING_ON, LEAST, hopeless, is_paused, promotable
from lightning_tricks.search.pruners import rung_of
from lightning_tricks.selection.places import places
from lightning_tricks.tracking.agreement import differences
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.runner import Runner
from lightning_tricks.trial.job import Job

EPOCHS = 6
RECIPES = [
    Tricks(),
    Tricks.parse(
        {
            "schedule": {"kind": "cosine"},
            "averaging": {"kind": "ema"},
            "stopping": {"kind": "patience", "patience": 1.0},
            "dropout": {"kind": "dropout"},
        }
    ),
    Tricks.parse({"optimizer": {"kind": "muon"}, "schedule": {"kind": "plateau"}}),
]


def task(repeats=1):
    return Task("pauses", small_data(), lambda tricks: mlp(), epochs=EPOCHS, repeats=repeats)


def trained(jobs, fuse, repeats=1):
    found = {}
    runner = Runner(task(repeats))
    runner.train(
        jobs,
        lambda job, epoch: False,
        lambda job, result: found.__setitem__(job.number, result),
        GroupSize.of(fuse),
    )
    return [found[job.number] for job in jobs]


def jobs_in(folder, pause_after=None):
    return [
        Job(number, recipe, 5 + number, folder and folder / f"{number}.ckpt", pause_after)
        for number, recipe in enumerate(RECIPES)
    ]


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("fuse", ["off", 6])
def test_a_training_that_paused_twice_ends_as_one_that_did_not(fuse, repeats, tmp_path):
    undisturbed = trained(jobs_in(None), fuse, repeats)
    for pause_after in (1, 3):
        paused = trained(jobs_in(tmp_path, pause_after), fuse, repeats)
        assert [result.state for result in paused] == ["paused"] * len(RECIPES)
        assert {len(result.epochs) for result in paused} == {pause_after + 1}
    ended = trained(jobs_in(tmp_path), fuse, repeats)
    for one, other in zip(undisturbed, ended, strict=True):
        assert one.state == other.state == "complete"
        assert [epoch.score for epoch in one.epochs] == [epoch.score for epoch in other.epochs]
        assert all((one.weights[name] == other.weights[name]).all() for name in one.weights)


def test_one_of_a_group_goes_on_alone_where_it_stood(tmp_path):
    trained(jobs_in(tmp_path, pause_after=1), 6)
    heard = []
    jobs = jobs_in(tmp_path)[:1]
    Runner(task()).train(
        jobs, lambda job, epoch: heard.append(epoch) or False, lambda *ended: None, GroupSize.of(6)
    )
    (tmp_path / "0.ckpt").unlink()
    (alone,) = trained(jobs, "off")
    scores = [epoch.score for epoch in alone.epochs]
    assert [epoch.score for epoch in heard] == pytest.approx(scores, abs=0.1)
    assert len(heard) == EPOCHS  # the first two are told again from the checkpoint


def test_only_who_goes_on_is_trained_several_times(tmp_path):
    runner, found, heard = Runner(task(repeats=2)), {}, []

    def train(pause_after):
        jobs = [Job(0, Tricks(), 5, tmp_path / "0.ckpt", pause_after)]
        runner.train(
            jobs,
            lambda job, epoch: heard.append(epoch) or False,
            lambda job, result: found.__setitem__(pause_after, result),
            GroupSize.of("off"),
        )

    train(1)
    assert [path.name for path in tmp_path.iterdir()] == ["0.ckpt"]
    assert "val repeats/spread" not in found[1].epochs[-1].metrics
    train(None)
    assert "val repeats/spread" in found[None].epochs[-1].metrics
    (whole,) = trained([Job(0, Tricks(), 5)], "off", repeats=2)
    assert [epoch.score for epoch in whole.epochs] == [e.score for e in found[None].epochs]
    assert heard[0].score == whole.epochs[0].metrics["val repeats/0"]


@pytest.mark.parametrize("fuse", ["off", 6])
def test_the_last_epoch_is_no_pause(fuse, tmp_path):
    results = trained(jobs_in(tmp_path, EPOCHS - 1), fuse)
    assert {result.state for result in results} == {"complete"}
    assert {len(result.epochs) for result in results} == {EPOCHS}


@pytest.mark.parametrize("fuse", ["off", 6])
def test_a_trial_that_is_stopped_where_it_would_pause_is_pruned(fuse, tmp_path):
    found = {}
    Runner(task()).train(
        jobs_in(tmp_path, 1),
        lambda job, epoch: epoch.number == 1,
        lambda job, result: found.__setitem__(job.number, result),
        GroupSize.of(fuse),
    )
    assert {result.state for result in found.values()} == {"pruned"}
    assert {len(result.epochs) for result in found.values()} == {2}


def searched(folder, n_trials=12, observers=(), **options):
    study = create_study(
        "pauses", storage=folder / "optuna.journal", epochs=EPOCHS, pruner="pause", seed=3
    )
    optimize(
        study,
        task(),
        n_trials=n_trials,
        seed=3,
        observers=observers,
        **{
            "progress": False,
            "workers": "inline",
            "fuse": "off",
            "tracking_uri": folder / "mlflow.db",
            "checkpoints": folder / "checkpoints",
            **options,
        },
    )
    return study


def told(study):
    return [(t.state, t.params, t.intermediate_values, t.value) for t in study.trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, searched(folder)


def test_one_in_six_trials_is_trained_to_the_end(undisturbed):
    folder, study = undisturbed
    drawn = [trial for trial in study.trials if keys.ROLE not in trial.user_attrs]
    whole = [trial for trial in drawn if len(trial.intermediate_values) == EPOCHS]
    stopped = [trial for trial in drawn if trial not in whole]
    assert {trial.state for trial in stopped} == {TrialState.PRUNED}
    assert {len(trial.intermediate_values) for trial in stopped} == {rung_of(study, EPOCHS) + 1}
    assert len(whole) == max(len(drawn) // GOING_ON, LEAST)
    assert list((folder / "checkpoints" / "pauses" / "running").iterdir()) == []
    assert differences(study, task(), f"sqlite:///{folder / 'mlflow.db'}") == []


class Interrupting(Observer):
    """Interrupts the program at some event."""

    def __init__(self, at):
        self.left = at

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def began(self, number, tricks, seed):
        self._count()

    def epoch(self, number, epoch):
        self._count()

    def paused(self, number, outcome):
        self._count()


@pytest.mark.parametrize(
    "at", [21, 22, 23, *(pytest.param(at, marks=pytest.mark.slow) for at in (17, 30, 37))]
)
def test_interrupted_anywhere_it_goes_on_to_the_same_trials(at, undisturbed, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, observers=[Interrupting(at)])
    study = optuna.load_study(
        study_name="pauses", storage=create_study("pauses", storage=tmp_path / "optuna.journal")._storage
    )
    assert differences(study, task(), f"sqlite:///{tmp_path / 'mlflow.db'}") == []
    waiting = [trial for trial in study.trials if is_paused(trial)]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'pauses'")
    statuses = {
        run.data.tags["trial.number"]: run.info.status
        for run in client.search_runs([experiment.experiment_id])
        if "trial.number" in run.data.tags
    }
    assert {statuses[str(trial.number)] for trial in waiting} <= {"SCHEDULED"}
    capsys.readouterr()
    study = searched(tmp_path, progress=True)
    counts = [int(at) for at in re.findall(r"^(\d+)/12  ", capsys.readouterr().err, re.M)]
    assert max(counts) == 12
    assert counts == sorted(counts)
    assert told(study) == told(undisturbed[1])
    assert differences(study, task(), f"sqlite:///{tmp_path / 'mlflow.db'}") == []


def test_without_mlflow_too(undisturbed, tmp_path):
    assert told(searched(tmp_path, tracking_uri=None)) == told(undisturbed[1])


def trial_of(number, scores, state, after):
    """Return a trial with scores by epoch, which pauses after an epoch."""
    epochs = [{"number": n, "score": s, "metrics": {}} for n, s in enumerate(scores)]
    return FrozenTrial(
        number=number,
        state=state,
        value=scores[-1] if state == TrialState.COMPLETE else None,
        datetime_start=datetime.now(),
        datetime_complete=datetime.now() if state.is_finished() else None,
        params={},
        distributions={},
        user_attrs={keys.PAUSE_AFTER: after, keys.OUTCOME: {"epochs": epochs}},
        system_attrs={},
        intermediate_values=dict(enumerate(scores)),
        trial_id=number,
    )


score = some.integers(0, 5).map(float)
trial_kinds = some.one_of(
    some.tuples(some.just("waits"), score),
    some.tuples(some.just("went on"), score),
    some.tuples(some.just("diverged"), score),
)


def trials_of(kinds):
    made = {
        "waits": lambda n, s: trial_of(n, [0.0, s], TrialState.WAITING, 1),
        "went on": lambda n, s: trial_of(n, [0.0, s] * 3, TrialState.COMPLETE, None),
        "diverged": lambda n, s: trial_of(n, [s], TrialState.PRUNED, 1),
    }
    return [made[kind](number, score) for number, (kind, score) in enumerate(kinds)]


@given(
    some.lists(trial_kinds, max_size=40),
    some.sampled_from([StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]),
    some.booleans(),
)
def test_who_goes_on_is_better_than_who_waits(kinds, direction, at_end):
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    trials = trials_of(kinds)
    chosen = promotable(trials, 1, direction, at_end=at_end)
    waiting = [number for number, (kind, _) in enumerate(kinds) if kind == "waits"]
    gone = sum(kind == "went on" for kind, _ in kinds)
    assert set(chosen) <= set(waiting)
    wanted = max(len(trials) // GOING_ON, LEAST if at_end else 0)
    assert len(chosen) == min(max(wanted - gone, 0), len(waiting))
    for one, other in itertools.product(chosen, set(waiting) - set(chosen)):
        assert sign * kinds[one][1] >= sign * kinds[other][1]
    lost = hopeless(trials, 1, direction, n_trials=48)
    assert not set(lost) & set(chosen)
    assert set(hopeless(trials, 1, direction, n_trials=GOING_ON)) >= set(lost)


@given(
    some.lists(
        some.tuples(some.lists(score, min_size=1, max_size=4), some.booleans()), min_size=1, max_size=12
    )
)
def test_places_follow_the_scores_at_equal_epochs(trials):
    reports = [dict(enumerate(scores)) for scores, _ in trials]
    finals = [scores[-1] if ended else None for scores, ended in trials]
    found = places(reports, finals)
    assert sum(found) == pytest.approx(len(trials) * (len(trials) + 1) / 2)
    for one, other in itertools.combinations(range(len(trials)), 2):
        if finals[one] is not None and finals[other] is not None:
            assert (found[one] - found[other]) * (finals[one] - finals[other]) >= 0
        if reports[one].keys() == reports[other].keys() and finals[one] is finals[other] is None:
            last = max(reports[one])
            assert (found[one] - found[other]) * (reports[one][last] - reports[other][last]) >= 0


def test_who_diverged_or_has_no_score_comes_last():
    assert places([{0: 9.0}, {}, {0: 1.0}], [-math.inf, None, None]) == [1.5, 1.5, 3.0]
