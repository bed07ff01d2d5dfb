"""Entry point of this folder: several trainings as one program."""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from lightning_tricks.fusion.group import Group
from lightning_tricks.fusion.member import Member
from lightning_tricks.fusion.parity import check_draws
from lightning_tricks.fusion.unfusible import Unfusible
from lightning_tricks.task.quiet import quiet
from lightning_tricks.trial.result import Result
from lightning_tricks.trial.training import Training


def train_as_one(
    trials: Sequence[Sequence[Training]], interrupted: Callable[[], bool], device: torch.device
) -> Iterator[tuple[Training, Result]]:
    """Train as one program, and yield each training with its result when it ends.

    Args:
        trials: the trainings of each trial. If one cannot be set up, its whole trial is skipped. If
            only one training is left, it is skipped too, unless it resumes from a group's checkpoint.
        interrupted: tells whether to stop everything.
        device: the device that trains.

    Raises:
        Unfusible: if they cannot be trained as one.
        torch.OutOfMemoryError: if they do not fit the memory together.
        Interrupted: soon after `interrupted` returns true.
        Exception: whatever else `vmap` or the user's code raises.
    """
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        members = [member for trial in trials for member in _members(trial, device)]
        if len(members) > 1 or any(member.checkpoint for member in members):
            yield from _run(Group(members, interrupted))


def _members(trial: Sequence[Training], device: torch.device) -> list[Member]:
    """Set up the trainings of a trial; none if one fails. Trained alone, that one reports the error."""
    try:
        return [_member(training, device) for training in trial]
    except Unfusible:
        raise
    except Exception:
        return []


def _member(training: Training, device: torch.device) -> Member:
    training.task.data.move(device)
    member = Member(training, device)
    check_draws(member)
    return member


def _run(group: Group) -> Iterator[tuple[Training, Result]]:
    while True:
        for member in group.leave():
            yield member.training, member.result(group.errors.get(member))
        if not group.members:
            return
        group.run_epoch()
