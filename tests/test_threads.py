"""The number of threads in training: measured unless the user sets it."""

import time

import pytest
import torch
from conftest import mlp, optimize, small_data
from torch import nn

from lightning_tricks import Task, Tricks, create_study
from lightning_tricks.training import threads
from lightning_tricks.training.group_size import GroupSize
from lightning_tricks.training.runner import Runner
from lightning_tricks.training.threads import best_threads
from lightning_tricks.trial.job import Job


class Waiting(nn.Module):
    """A network with threads that wait for each other, or that gain much."""

    slow = 1

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, inputs):
        time.sleep(0.01 if torch.get_num_threads() == self.slow else 0.001)
        return self.layers(inputs)


def task():
    return Task("waiting", small_data(batch_size=2), lambda tricks: Waiting(), epochs=1)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("slow", "best"), [(1, 2), (2, 1)])
def test_the_faster_number_is_taken_and_torch_left_alone(slow, best, monkeypatch):
    seconds = {slow: 0.01, best: 0.001}
    monkeypatch.setattr(threads, "_step", lambda task: seconds[torch.get_num_threads()])
    assert best_threads(task()) == best
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("why", ["the user", "long steps", "slow data", "fails"])
def test_what_is_not_to_be_measured_is_left_as_it_is(why, monkeypatch):
    monkeypatch.setattr(Waiting, "slow", 2)
    some = task()
    if why == "the user":
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    elif why == "long steps":
        monkeypatch.setattr(threads, "WORTH_SECONDS", 1e-6)
    elif why == "slow data":
        monkeypatch.setattr(threads, "MOST_SECONDS", 1e-6)
    else:
        some = Task("waiting", small_data(), lambda tricks: 1 / 0, epochs=1)
    assert best_threads(some) == 2


def test_a_step_takes_the_mean_time_between_the_ends_of_steps():
    clock = threads._Clock()
    clock.ends = [1.0, 2.0, 4.0]
    assert clock.step() == 1.5
    clock.ends = [1.0]
    assert clock.step() == float("inf")


def test_a_worker_measures_once_and_trains_with_what_it_found(monkeypatch):
    monkeypatch.setattr(Waiting, "slow", 2)
    asked = []
    monkeypatch.setattr(
        "lightning_tricks.training.runner.best_threads", lambda task: asked.append(task) or 1
    )
    runner, jobs = Runner(task()), [Job(0, Tricks.plain(), 0)]
    for width in (GroupSize.of(4), GroupSize.of("auto"), GroupSize.of("auto")):
        runner.train(jobs, lambda *unused: False, lambda *unused: None, width)
    assert len(asked) == 1  # a given number is the user's choice
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("without_mlflow")
def test_the_process_has_its_threads_again(with_store, monkeypatch):
    monkeypatch.setattr(Waiting, "slow", 2)
    optimize(create_study("waiting", storage=None), task(), n_trials=2, fuse="auto", progress=False)
    assert torch.get_num_threads() == 2
