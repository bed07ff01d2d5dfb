"""What a study prints while it runs."""

import contextlib
import io
import os
import pty
import re
import termios

import pytest

from lightning_tricks.report.facts import duration
from lightning_tricks.study.progress import Progress


def finish(bar, *seconds, workers=1):
    bar.workers = workers
    for spent in seconds:
        bar.trial_ended("trial", "COMPLETE", "0.9", spent)


def lines(total, *seconds, workers=1):
    stream = io.StringIO()
    with Progress(total, stream=stream) as bar:
        bar.start([])
        finish(bar, *seconds, workers=workers)
    return stream.getvalue().splitlines()


def test_the_time_left_is_told_once_it_can_be_known_by_the_mean_of_all_trials_but_the_first():
    told = lines(13, 60.0, 1.0, 2.0, 2.0)
    assert not any("left" in line for line in told[:2])  # the first trial includes the start
    assert told[2].endswith(", 15 s left)")
    assert told[3].endswith(", 15 s left)")


def test_repeats_are_no_measure():
    told = lines(9, None, 4.0, None, 4.0, None, 4.0)
    assert [("left" in line) for line in told] == [False] * 5 + [True]
    assert told[-1].endswith(", 24 s left)")


def test_several_workers_share_what_is_left():
    assert lines(10, 6.0, 6.0, 6.0, workers=4)[-1].endswith(", 12 s left)")


def test_nothing_is_left_at_the_end():
    assert "left" not in lines(3, 1.0, 1.0, 1.0)[-1]


def everything(control):
    """Read what was written to a terminal so far."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while True:
            pieces.append(os.read(control, 10_000))
    return b"".join(pieces).decode()


def test_the_live_line_on_a_terminal_of_80_columns_tells_the_same(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(control, False)
    with os.fdopen(terminal, "w") as stream, Progress(130, stream=stream) as bar:
        bar.start([])
        for best in ("none yet", "0.9", "0.9333", "0.9806 (trial 123)"):
            bar.pruned, bar.paused = bar.pruned + 20, dict.fromkeys(range(12), 1.0)
            bar.trial_ended("trial", "PRUNED", best, 1.0)
        bar.warn("[red]a word in brackets is shown as it is[/red]")
        bar.start_stage("verdict", 7, [])
        shown = everything(control)
    os.close(control)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    assert any(line.startswith("warning: [red]a word") for line in lines)
    live = [line.strip() for line in lines if "/130" in line]
    assert "pruned" not in live[0]
    assert all("0:00:0" in line for line in live)
    assert "left" not in live[2]
    assert live[-1].endswith("12 paused, 84 pruned, best 0.9806 (trial 123), 2 min left")
    assert all(line.startswith("search ") for line in live)
    assert any(line.strip().startswith("verdict ") and "0/7" in line for line in lines)
    assert max(map(len, live)) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_a_duration_is_written_in_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words
