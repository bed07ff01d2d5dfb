"""The study's folder: checkpoints of the trials under way, weights of the best few."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from lightning_tricks.errors import InputError
from lightning_tricks.scores import Mode, Rank, rank
from lightning_tricks.search.observer import Observer
from lightning_tricks.search.outcomes import Outcome


class StudyFolder(Observer):
    """What is kept of trials, so that the disk a study uses does not grow with them.

    Args:
        path: of the folder, which is the study's own.
        keep: of how many of the best trials the weights are kept, beside those of the baseline and
            of plain.
        mode: whether less or more is better.
    """

    def __init__(self, path: Path, keep: int, mode: Mode) -> None:
        self.path, self.keep = path, keep
        self._running = path / "running"
        self._mode = mode
        self._ranks: dict[int, Rank] = {}
        """Of the best."""
        self._references: set[int] = set()

    def check(self) -> None:
        """Look whether the folder is there, or can be made; make nothing.

        Raises:
            InputError: if it cannot be made or written to.
        """
        try:
            there = next(p for p in (self._running, *self._running.parents) if p.exists())
        except OSError as error:  # a name that is too long
            raise InputError(f"checkpoints cannot be kept in {self.path}: {error}") from None
        if not (there.is_dir() and os.access(there, os.W_OK)):
            why = "may not be written to" if there.is_dir() else "is no folder"
            raise InputError(f"checkpoints cannot be kept in {self.path}: {there} {why}")

    def create(self) -> None:
        """Make the folder.

        Raises:
            InputError: if it cannot be made.
        """
        try:
            self._running.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"checkpoints cannot be kept in {self.path}: {error}") from None

    def rank(self, outcomes: Mapping[int, Outcome], references: Iterable[int]) -> None:
        """Learn how the trials so far ended; of the best, those whose weights are here count.

        Args:
            outcomes: of the trials that used their whole budget.
            references: the baseline and plain, whose weights are kept however they end.
        """
        self._references = set(references)
        known = {n: outcome for n, outcome in outcomes.items() if self._path(n).exists()}
        self._ranks = self._best({n: self._rank(n, outcome) for n, outcome in known.items()})

    def remove_checkpoints(self, *, except_of: Iterable[int]) -> None:
        """Drop the checkpoints of all trials but those that are to go on."""
        names = {self.checkpoint(number).stem for number in except_of}
        for path in self._running.iterdir():
            if path.name.split(".")[0] not in names:
                _remove(path)

    def checkpoint(self, number: int) -> Path:
        """Return where the checkpoints of a trial go."""
        return self._running / f"trial-{number:05d}.ckpt"

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        """Drop the checkpoints of a trial that ended."""
        del outcome
        for path in self._running.glob(f"{self.checkpoint(trial.number).stem}.*"):
            _remove(path)

    def save_weights(
        self,
        number: int,
        outcome: Outcome,
        weights: Callable[[], Mapping[str, Tensor]],
        *,
        reference: bool = False,
    ) -> None:
        """Keep the weights of a trial if it is one of the best, or the baseline or plain.

        Args:
            number: of the trial.
            outcome: of the trial.
            weights: fetches them, if they are wanted.
            reference: whether it is the baseline or plain.

        Raises:
            OSError, RuntimeError: if they cannot be written.
        """
        if reference:
            self._references.add(number)
        ranks = self._best({**self._ranks, number: self._rank(number, outcome)})
        if number not in {*ranks, *self._references}:
            return
        path = self._path(number)
        # Under a name that nobody knows before: a link of that name would be followed.
        part = path.with_suffix(f".{secrets.token_hex(8)}.part")
        torch.save(dict(weights()), part)
        part.replace(path)
        self._ranks = ranks
        names = {self._path(n).name for n in {*self._ranks, *self._references}}
        for other in self.path.glob("trial-*.pt"):
            if other.name not in names:
                other.unlink()

    def load_weights(self, number: int) -> dict[str, Tensor] | None:
        """Return the weights of a trial; None if they are not here, or damaged."""
        path = self._path(number)
        weights: dict[str, Tensor] | None = None
        with contextlib.suppress(Exception):  # torch raises many for a file that is damaged
            if path.exists():
                weights = torch.load(path, map_location="cpu", weights_only=True)
        return weights

    def _rank(self, number: int, outcome: Outcome) -> Rank:
        return rank(number, outcome.score or 0.0, outcome.epochs, self._mode)

    def _best(self, ranks: Mapping[int, Rank]) -> dict[int, Rank]:
        return dict(sorted(ranks.items(), key=lambda entry: entry[1])[: self.keep])

    def _path(self, number: int) -> Path:
        return self.path / f"trial-{number:05d}.pt"


def _remove(path: Path) -> None:
    """Remove what stands where a checkpoint should, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
