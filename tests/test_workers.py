"""Workers as real Ray actors that are killed, hang or fail."""

import os
import signal
from pathlib import Path

import pytest
import ray
import torch
import troubled
from conftest import mlp, optimize, small_data

from lightning_tricks import InputError, Task, create_study, train
from lightning_tricks.search.studies import finished
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.trial.job import Job
from lightning_tricks.workers.base import Ended, Lost, Measured, Reported
from lightning_tricks.workers.inline import Inline
from lightning_tricks.workers.placement import Placement
from lightning_tricks.workers.ray_workers import RayWorkers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workers")]

TWO = GroupSize(2, final=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def workers(folder):
    """One worker on half of a device that Ray was told exists; Ray runs before and after."""
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    made = RayWorkers(
        troubled.task(folder),
        count=1,
        devices=0.5,
        address=None,
        stall_seconds=30,  # of a machine that is busy, too
    )
    yield made
    made.close()
    assert ray.is_initialized()
    ray.shutdown()


def job(folder, number, trouble):
    tricks = troubled.Troubled(trouble=trouble, dropout={"kind": "dropout"}, averaging={"kind": "ema"})
    return Job(number, tricks, 11, Path(folder, f"{number}.ckpt"))


def run(workers, work, until, answer=lambda event: False):
    """Train a job until an event; return all events."""
    events = []

    def callback(event):
        events.append(event)
        return answer(event)

    while not workers.free:
        workers.wait(callback, 1)
    workers.submit([work], GroupSize())
    while not any(until(event) for event in events):
        workers.wait(callback, 1)
    return events


def ended(event):
    return isinstance(event, (Ended, Lost))


def epochs(events):
    return [event.epoch for event in events if isinstance(event, Reported)]


def assert_same(one, other):
    """Scores are equal; other metrics may differ in the last digits."""
    assert [epoch.score for epoch in one] == [epoch.score for epoch in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.metrics == pytest.approx(theirs.metrics, rel=1e-4)


def test_a_worker_trains_what_this_process_would(workers, folder):
    work = job(folder, 1, "none")
    *reports, end = run(workers, work, ended)
    expected = train(troubled.task(folder), work.tricks, work.seed)
    assert epochs(reports) == end.result.epochs
    assert_same(end.result.epochs, expected.epochs)
    weights = end.weights()
    for name, value in expected.weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
    assert not end.result.weights
    assert troubled.steps(folder)[0].endswith(" 0")  # the device that Ray gave it


def test_a_worker_finds_out_how_many_it_does_best_at_a_time(workers, folder):
    jobs, events = [job(folder, number, "none") for number in (31, 32)], []
    while not workers.free:
        workers.wait(lambda event: False, 1)
    workers.submit(jobs, GroupSize())
    while sum(map(ended, events)) < 2:
        workers.wait(events.append, 1)
    (measured,) = [event.group_size for event in events if isinstance(event, Measured)]
    assert measured.seconds > 0
    assert measured.best == (1 if measured.final else 2)
    assert isinstance(events[0], Measured)  # before anything is trained


def test_a_worker_trains_a_group_and_its_death_loses_all_of_it(workers, folder):
    jobs = [job(folder, number, "none") for number in (21, 22)]
    events = []
    while not workers.free:
        workers.wait(lambda event: False, 1)
    workers.submit(jobs, TWO)
    while sum(map(ended, events)) < 2:
        workers.wait(events.append, 1)
    ends = {event.number: event for event in events if isinstance(event, Ended)}
    for work in jobs:
        own = [event for event in events if event.number == work.number]
        mine = epochs(own)
        assert mine == ends[work.number].result.epochs
        expected = train(troubled.task(folder), work.tricks, work.seed)
        assert_same(mine, expected.epochs)
        weights = ends[work.number].weights()
        for name, value in expected.weights.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    slow, events = [job(folder, number, "slow") for number in (23, 24)], []
    while not workers.free:
        workers.wait(lambda event: False, 1)
    workers.submit(slow, TWO)
    while not any(isinstance(event, Reported) for event in events):
        workers.wait(events.append, 1)
    os.kill(int(troubled.steps(folder)[-1].split()[1]), signal.SIGKILL)
    while sum(isinstance(event, Lost) for event in events) < 2:
        workers.wait(events.append, 1)
    assert {event.number for event in events if isinstance(event, Lost)} == {23, 24}


def test_a_killed_worker_costs_no_score(workers, folder):
    work = job(folder, 2, "slow")
    events = run(workers, work, lambda event: isinstance(event, Reported) and event.epoch.number == 2)
    before = troubled.steps(folder)
    os.kill(int(before[-1].split()[1]), signal.SIGKILL)
    while not ended(events[-1]):
        workers.wait(events.append, 1)
    assert isinstance(events[-1], Lost)
    assert events[-1].reason == "its process died"
    *reports, end = run(workers, work, ended)
    assert epochs(reports) == end.result.epochs
    expected = train(troubled.task(folder), work.tricks.model_copy(update={"trouble": "none"}), 11)
    assert_same(end.result.epochs, expected.epochs)
    again = [line for line in troubled.steps(folder)[len(before) :] if line.startswith("slow")]
    assert 0 < len(again) < 5 * 3  # not all epochs of three batches were trained again
    assert end.result.seconds > 2


def test_a_stop_reaches_the_worker_by_the_next_epoch(workers, folder):
    events = run(workers, job(folder, 3, "slow"), ended, answer=lambda event: True)
    assert events[-1].result.state == "pruned"
    assert 1 <= len(events[-1].result.epochs) <= 2


def test_an_exception_is_a_result(workers, folder):
    end = run(workers, job(folder, 4, "raises"), ended)[-1]
    assert (end.result.state, end.result.reason) == ("failed", "RuntimeError: it does not work")
    assert "in suffer" in end.result.traceback


def test_a_worker_that_hangs_is_lost(workers, folder):
    events = run(workers, job(folder, 5, "hangs"), ended)
    assert isinstance(events[-1], Lost)
    assert "no sign of life" in events[-1].reason
    assert ended(run(workers, job(folder, 6, "none"), ended)[-1])


def test_more_workers_than_there_is_room_for_are_refused(workers, folder):
    with pytest.raises(InputError, match=r"3 workers of 0.5 devices each do not fit.*at most 2"):
        RayWorkers(troubled.task(folder), count=3, devices=0.5, address=None, stall_seconds=8)


def test_a_task_that_cannot_travel_is_told_before_the_first_trial():
    with Path("here").open("w") as handle:
        task = Task("tiny", small_data(), lambda tricks: mlp() if handle else None, epochs=2)
        study = create_study("tiny", storage=None)
        with pytest.raises(InputError, match="cannot be pickled"):
            optimize(study, task, n_trials=2, workers=2, progress=False)
    assert not finished(study)


PLACEMENTS = {
    "none": ({"workers": 0}, "workers must be auto, inline or a number"),
    "word": ({"workers": "many"}, "workers must be auto, inline or a number"),
    "devices": ({"devices": 1.5}, "devices_per_trial must be a whole number, or a fraction"),
    "negative": ({"devices": -1}, "devices_per_trial must be"),
    "cluster": ({"workers": "inline", "ray_address": "auto"}, "cannot be used with workers inline"),
    "stall": ({"stall_minutes": 0}, "stall_minutes must be greater than 0"),
}


@pytest.mark.parametrize("case", PLACEMENTS)
def test_a_wrong_placement_is_one_clear_line(case):
    given, message = PLACEMENTS[case]
    with pytest.raises(InputError, match=message):
        Placement(**given)


def test_auto_stays_in_this_process_until_several_are_worth_their_start(monkeypatch):
    from lightning_tricks.workers import placement

    monkeypatch.setattr(placement.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(placement.joblib, "cpu_count", lambda **options: 8)
    task = Task("tiny", small_data(), lambda tricks: mlp())
    auto = Placement()
    assert isinstance(auto.create(task, lambda: False), Inline)
    assert auto.worthwhile(task, trials=100, seconds=50) == 1
    assert auto.worthwhile(task, trials=100, seconds=250) == 4
    assert auto.worthwhile(task, trials=3, seconds=1e4) == 3
    assert auto.worthwhile(task, trials=100, seconds=1e4) == 8
    assert Placement(devices=2).worthwhile(task, trials=100, seconds=1e4) == 4
    assert Placement(workers="inline").worthwhile(task, trials=100, seconds=1e4) == 1


def test_waiting_without_work_ends_and_tells_of_nothing(workers):
    events = []
    workers.wait(events.append, 0.2)
    assert events == []
