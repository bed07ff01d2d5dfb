"""The study's folder: checkpoints of running trials, weights of the best few."""

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
    """Checkpoints and weights of a study's trials; their disk use does not grow with the trials.

    Args:
        path: the folder, used by this study only.
        keep: number of best trials that keep their weights, in addition to the references.
        mode: whether lower or higher scores are better.
    """

    def __init__(self, path: Path, keep: int, mode: Mode) -> None:
        self.path, self.keep = path, keep
        self._running = path / "running"
        self._mode = mode
        self._ranks: dict[int, Rank] = {}
        """Ranks of the best trials, by number."""
        self._references: set[int] = set()

    def check(self) -> None:
        """Check that the folder exists or can be made, without making it.

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
        """Rank the finished trials; only those with weights in the folder count.

        Args:
            outcomes: outcomes of the trials that used their full budget, by number.
            references: numbers of the trials that always keep their weights.
        """
        self._references = set(references)
        known = {n: outcome for n, outcome in outcomes.items() if self._path(n).exists()}
        self._ranks = self._best({n: self._rank(n, outcome) for n, outcome in known.items()})

    def remove_checkpoints(self, *, except_of: Iterable[int]) -> None:
        """Remove all checkpoints except those of the given trials."""
        names = {self.checkpoint(number).stem for number in except_of}
        for path in self._running.iterdir():
            if path.name.split(".")[0] not in names:
                _remove(path)

    def checkpoint(self, number: int) -> Path:
        """Return the path of a trial's checkpoint."""
        return self._running / f"trial-{number:05d}.ckpt"

    def ended(self, trial: FrozenTrial, outcome: Outcome) -> None:
        """Remove the checkpoints of a trial that ended."""
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
        """Save a trial's weights if it is a reference or one of the best; remove those of worse trials.

        Args:
            number: the trial's number.
            outcome: the trial's outcome.
            weights: fetches the weights; called only if they are needed.
            reference: whether the trial always keeps its weights.

        Raises:
            OSError, RuntimeError: if the weights cannot be written.
        """
        if reference:
            self._references.add(number)
        ranks = self._best({**self._ranks, number: self._rank(number, outcome)})
        if number not in {*ranks, *self._references}:
            return
        path = self._path(number)
        # An unpredictable name: torch.save would follow a link planted under a known one.
        part = path.with_suffix(f".{secrets.token_hex(8)}.part")
        torch.save(dict(weights()), part)
        part.replace(path)
        self._ranks = ranks
        names = {self._path(n).name for n in {*self._ranks, *self._references}}
        for other in self.path.glob("trial-*.pt"):
            if other.name not in names:
                other.unlink()

    def load_weights(self, number: int) -> dict[str, Tensor] | None:
        """Return a trial's weights; None if they are missing or damaged."""
        path = self._path(number)
        weights: dict[str, Tensor] | None = None
        with contextlib.suppress(Exception):  # torch raises various errors for a damaged file
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
    """Remove a path, whether it is a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
