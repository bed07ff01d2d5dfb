"""The study's folder: checkpoints of the trials under way, weights of the best few."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_tricks.errors import InputError
from lightning_tricks.tricks.stopping import Mode


class Shelf:
    """What is kept of trials, so that the disk a study uses does not grow with them.

    Args:
        folder: which is the study's own.
        keep: of how many of the best trials the weights are kept.
        mode: whether less or more is better.
    """

    def __init__(self, folder: Path, keep: int, mode: Mode) -> None:
        self.folder, self.keep = folder, keep
        self._running = folder / "running"
        self._sign = 1 if mode == "max" else -1
        self._scores: dict[int, float] = {}

    def make(self) -> None:
        """Make the folder.

        Raises:
            InputError: if it cannot be made.
        """
        try:
            self._running.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"checkpoints cannot be kept in {self.folder}: {error}") from None

    def know(self, scores: Mapping[int, float]) -> None:
        """Learn the scores of the trials so far; whose weights are here counts among the best."""
        self._scores = {n: score for n, score in scores.items() if self._path(n).exists()}

    def clear(self, waiting: Iterable[int]) -> None:
        """Drop the checkpoints of all trials but those that are to go on."""
        names = {self.checkpoint(number).stem for number in waiting}
        for path in self._running.iterdir():
            if path.name.split(".")[0] not in names:
                path.unlink(missing_ok=True)

    def checkpoint(self, number: int) -> Path:
        """Return where the checkpoints of a trial go."""
        return self._running / f"trial-{number:05d}.ckpt"

    def drop(self, number: int) -> None:
        """Drop the checkpoints of a trial that ended."""
        for path in self._running.glob(f"{self.checkpoint(number).stem}.*"):
            path.unlink(missing_ok=True)

    def put(self, number: int, score: float, weights: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep the weights of a trial if it is one of the best.

        Args:
            number: of the trial.
            score: of the trial.
            weights: fetches them, if they are wanted.

        Raises:
            OSError, RuntimeError: if they cannot be written.
        """
        ranked = sorted({**self._scores, number: score}.items(), key=self._rank)[: self.keep]
        if number not in dict(ranked):
            return
        path = self._path(number)
        torch.save(dict(weights()), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        self._scores = dict(ranked)
        names = {self._path(n).name for n in self._scores}
        for other in self.folder.glob("trial-*.pt"):
            if other.name not in names:
                other.unlink()

    def get(self, number: int) -> dict[str, Tensor] | None:
        """Return the weights of a trial; None if they are not here, or damaged."""
        path = self._path(number)
        weights: dict[str, Tensor] | None = None
        with contextlib.suppress(Exception):  # torch raises many for a file that is damaged
            if path.exists():
                weights = torch.load(path, map_location="cpu", weights_only=True)
        return weights

    def _rank(self, entry: tuple[int, float]) -> tuple[float, int]:
        number, score = entry
        return -self._sign * score, number

    def _path(self, number: int) -> Path:
        return self.folder / f"trial-{number:05d}.pt"
