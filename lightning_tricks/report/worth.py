"""The section of a report that says what each trick is worth."""

from collections.abc import Iterator

from lightning_tricks.report import figures
from lightning_tricks.report.blocks import Block, Table
from lightning_tricks.selection.ablation import Ablation
from lightning_tricks.selection.intervals import Interval

_METHOD = (
    "Leave one out: the champion minus the champion with that trick put back to plain. Add one in: "
    "plain with that trick minus plain. Pair: how much the combined effect exceeds the sum of the two. "
    "A worth above 0 is better, also for a loss. Every arm was trained at {rates} learning rates, "
    "evenly on a log scale over the range of the search, once each, the best two once more, and "
    "compared at the one with the best mean over {seeds} other seeds, the same for all. The intervals "
    "of the worth are of {level:.2f}%, so that all of them together are right in 95 of 100 ablations. "
    "The target is the score that champion, or plain, has after half of its epochs."
)


def worth(ablation: Ablation, champion: int, monitor: str) -> Iterator[Block]:
    """Return what an ablation found, as a sentence, a figure and a table.

    Args:
        ablation: of the study.
        champion: the number of the trial that is the champion now.
        monitor: the metric that trials are compared by.
    """
    if ablation.trial != champion:
        yield f"This is of trial {ablation.trial}, which was the champion then."
    yield ablation.headline()
    yield figures.forest(ablation)
    yield _table(ablation, monitor)
    yield _METHOD.format(rates=ablation.rates, seeds=ablation.seeds, level=100 * ablation.level)


def _table(ablation: Ablation, monitor: str) -> Table:
    known = [(r.name, "", r.rate, r.score, None, r.speed) for r in ablation.references]
    found = [(e.trick, e.family, e.rate, e.score, e.worth, e.speed) for e in ablation.effects]
    rows = [
        (trick, family, _number(rate), _interval(score), _interval(gain), str(speed))
        for trick, family, rate, score, gain, speed in [*known, *found]
    ]
    header = ("trick", "compared by", "best rate", monitor, "worth", "epochs to the target")
    return Table(header, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _interval(found: Interval | None) -> str:
    return "" if found is None else str(found)
