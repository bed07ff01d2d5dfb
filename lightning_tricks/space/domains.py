"""Domains: the values of a field that a search may propose, and how Optuna draws one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial

from lightning_tricks.errors import InputError, shown


class Domain(ABC):
    """The values that a search may propose for one field."""

    @abstractmethod
    def draw(self, trial: BaseTrial, path: str) -> Any:
        """Ask a trial for a value."""

    @abstractmethod
    def nearest(self, value: Any) -> Any:
        """Return the value of this domain closest to a given one."""

    @abstractmethod
    def encode(self, path: str, value: Any) -> dict[str, Any]:
        """Return the Optuna parameter that draws a value; empty if nothing is drawn."""

    @abstractmethod
    def extremes(self) -> Sequence[Any]:
        """Return the values to validate: the bounds or the options. If they are valid, all are."""

    @abstractmethod
    def describe(self) -> Any:
        """Return the domain as plain data."""

    @staticmethod
    def parse(path: str, value: Any, current: "Domain") -> "Domain":
        """Return the domain that a user wrote in place of the current one.

        Raises:
            InputError: if it is empty, or not a domain.
        """
        try:
            if isinstance(value, Domain):
                return value
            if isinstance(value, Mapping):
                return _range(value, current)
            if isinstance(value, (list, tuple)):
                choice = Choice(*value)
                return choice if len(value) > 1 else Fixed(choice.options[0])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path}: {error}") from None
        raise InputError(f"{path}: must be a list of options or {{low, high, log}} (got {shown(value)})")


def _range(value: Mapping[str, Any], current: Domain) -> Domain:
    """Return the range `{low, high, log}`, of the same kind as the current domain.

    The bounds are values of the field. A domain that searches the distance to one keeps doing so,
    unless `log: false` asks for an even range.
    """
    if unknown := set(value) - {"low", "high", "log"}:
        raise ValueError(f"a range has low, high and log only (got {sorted(map(str, unknown))})")
    if missing := {"low", "high"} - set(value):
        raise ValueError(f"a range needs low and high (missing: {sorted(missing)})")
    kind = type(current.value) if isinstance(current, Fixed) else type(current)
    log = value.get("log", kind is OneMinus)
    if not isinstance(log, bool):
        raise ValueError(f"log must be true or false (got {shown(log)})")
    if kind not in (Int, Float, OneMinus, int, float):
        raise ValueError(f"takes a list of options, not a range (got {shown(dict(value))})")
    if kind in (Int, int):
        return Int(_whole(value["low"]), _whole(value["high"]), log=log)
    low, high = _real(value["low"]), _real(value["high"])
    return OneMinus.between(low, high) if kind is OneMinus and log else Float(low, high, log=log)


def _whole(value: Any) -> int:
    if _real(value) != int(_real(value)):
        raise ValueError(f"the bounds must be whole numbers (got {shown(value)})")
    return int(_real(value))


def _real(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(f"the bounds must be numbers (got {value})")
    return float(value)


def _check_bounds(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low <= high must hold and both be finite (got low={low}, high={high})")
    if log and low <= 0:
        raise ValueError(f"low > 0 must hold if log is set (got low={low})")


@dataclass(frozen=True)
class Float(Domain):
    """Real numbers from `low` to `high`, both included; with `log`, even on a log scale."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def draw(self, trial: BaseTrial, path: str) -> float:
        return trial.suggest_float(path, self.low, self.high, log=self.log)

    def nearest(self, value: Any) -> float:
        return min(max(float(value), self.low), self.high)

    def encode(self, path: str, value: Any) -> dict[str, Any]:
        return {path: value}

    def extremes(self) -> Sequence[float]:
        return self.low, self.high

    def describe(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Int(Domain):
    """Whole numbers from `low` to `high`, both included; with `log`, even on a log scale."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def draw(self, trial: BaseTrial, path: str) -> int:
        return trial.suggest_int(path, self.low, self.high, log=self.log)

    def nearest(self, value: Any) -> int:
        whole: int = round(value)
        return min(max(whole, self.low), self.high)

    def encode(self, path: str, value: Any) -> dict[str, Any]:
        return {path: value}

    def extremes(self) -> Sequence[int]:
        return self.low, self.high

    def describe(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "log": self.log}


class Choice(Domain):
    """A few options: strings, numbers, booleans or None."""

    def __init__(self, *options: Any) -> None:
        if not options:
            raise ValueError("there must be at least one option (got none)")
        for option in options:
            if not isinstance(option, (str, int, float, bool, type(None))):
                raise ValueError(f"options must be strings, numbers or booleans (got {shown(option)})")
            if isinstance(option, float) and not math.isfinite(option):
                raise ValueError(f"options must be finite (got {option!r})")
        if len(set(options)) < len(options):
            raise ValueError(f"options must differ from each other (got {list(options)})")
        self.options = options

    def draw(self, trial: BaseTrial, path: str) -> Any:
        return trial.suggest_categorical(path, self.options)

    def nearest(self, value: Any) -> Any:
        return value if value in self.options else self.options[0]

    def encode(self, path: str, value: Any) -> dict[str, Any]:
        return {path: value}

    def extremes(self) -> Sequence[Any]:
        return self.options

    def describe(self) -> list[Any]:
        return list(self.options)

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.options))})"


@dataclass(frozen=True)
class OneMinus(Domain):
    """Numbers below one. Their distance to one goes from `low` to `high`, even on a log scale.

    Momenta and the decay rates of averages act through 1−β: from .9 to .99 is as far as from .99
    to .999. Optuna's parameter is that distance, `optimizer.adam.one_minus_beta1`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, log=True)

    @classmethod
    def between(cls, least: float, most: float) -> "OneMinus":
        """Return the domain of the values from `least` to `most`."""
        _check_bounds(least, most, log=False)
        if most >= 1:
            raise ValueError(
                f"high < 1 must hold, because the search uses the distance to one (got high={most}); "
                "set log: false for an even range"
            )
        return cls(1.0 - most, 1.0 - least)

    def draw(self, trial: BaseTrial, path: str) -> float:
        return 1.0 - trial.suggest_float(self._name(path), self.low, self.high, log=True)

    def nearest(self, value: Any) -> float:
        distance = 1.0 - float(value)
        if self.low <= distance <= self.high:
            return float(value)
        return 1.0 - min(max(distance, self.low), self.high)

    def encode(self, path: str, value: Any) -> dict[str, Any]:
        return {self._name(path): min(max(1.0 - value, self.low), self.high)}

    def extremes(self) -> Sequence[float]:
        return 1.0 - self.high, 1.0 - self.low

    def describe(self) -> dict[str, Any]:
        return {"one_minus": {"low": self.low, "high": self.high, "log": True}}

    @staticmethod
    def _name(path: str) -> str:
        stem, _, field = path.rpartition(".")
        return f"{stem}.one_minus_{field}" if stem else f"one_minus_{field}"


@dataclass(frozen=True)
class Fixed(Domain):
    """One fixed value, which is not searched."""

    value: Any

    def draw(self, trial: BaseTrial, path: str) -> Any:
        del trial, path
        return self.value

    def nearest(self, value: Any) -> Any:
        del value
        return self.value

    def encode(self, path: str, value: Any) -> dict[str, Any]:
        del path, value
        return {}

    def extremes(self) -> Sequence[Any]:
        return (self.value,)

    def describe(self) -> Any:
        return self.value
