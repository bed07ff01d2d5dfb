"""Drawing with matplotlib: SVG, axes, and intervals that fit them."""

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_tricks.selection.intervals import Interval

WIDTH, HEIGHT = 7.0, 3.2
"""Inches."""


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element, which scales with the page."""
    axes, stream = figure.axes[0], io.StringIO()
    # Names inside of it are made from this: those of two figures on a page must not be the same.
    salt = f"{axes.get_xlabel()} {axes.get_ylabel()} {figure.get_figheight()}"
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    element = stream.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", element)
    for size in ("width", "height"):  # the page says how wide it is
        element = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", element, count=1)
    return element


def axes_of(xlabel: str, ylabel: str, height: float = HEIGHT) -> tuple[Figure, "mpl.axes.Axes"]:
    """Return a figure and its axes, without the frame on top and at the right."""
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def count_whole(axes: "mpl.axes.Axes") -> None:
    """Count epochs and trials in whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def usual(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of values, far outliers left out (Tukey, 1977: three quartile ranges away)."""
    low, high = np.percentile(values, [25, 75])
    room = 3 * (high - low)
    near = [value for value in values if low - room <= value <= high + room]
    return min(near), max(near)


def draw_interval(
    axes: "mpl.axes.Axes", found: Interval, at: float, color: str, mark: str, face: str = ""
) -> None:
    """Draw a mean with its interval; what lies outside of the axis ends in an arrow."""
    low, high = bounds(found)
    left, right = axes.get_xlim()
    axes.plot([max(low, left), min(high, right)], [at, at], color=color)
    for outside, edge, arrow in ((low < left, left, "<"), (high > right, right, ">")):
        if outside:
            axes.plot([edge], [at], arrow, color=color, clip_on=False)
    if left <= found.mean <= right:
        axes.plot(
            [found.mean], [at], mark, color=color, markerfacecolor=face or color, gid=f"tip:{found}"
        )
    else:
        edge, side = (left, "left") if found.mean < left else (right, "right")
        axes.annotate(f"  {found}  ", (edge, at), ha=side, va="bottom", fontsize=7, color=color)


def bounds(found: Interval) -> tuple[float, float]:
    """Return both bounds of an interval; the mean where there is none."""
    low = found.mean if found.low is None else found.low
    return low, found.mean if found.high is None else found.high


def frame(axes: "mpl.axes.Axes", found: Sequence[Interval], *also: float) -> None:
    """Let an axis hold the usual bounds of some intervals, and some values."""
    edges = [edge for interval in found for edge in bounds(interval)]
    low, high = usual(edges) if edges else (0.0, 0.0)
    low, high = min(low, *also, high), max(high, *also, low)
    room = 0.05 * (high - low) or 0.01
    axes.set_xlim(low - room, high + room)
