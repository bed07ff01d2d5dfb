"""What is told while a study runs."""

import io
import os
import pty
import termios

import pytest

from lightning_tricks.progress import Progress, duration


def finish(bar, *seconds, workers=1):
    for spent in seconds:
        bar.finish("trial", "COMPLETE", "0.9", spent, workers)


def lines(total, *seconds, workers=1):
    stream = io.StringIO()
    with Progress(total, stream=stream) as bar:
        bar.begin([])
        finish(bar, *seconds, workers=workers)
    return stream.getvalue().splitlines()


def test_the_time_left_is_told_once_it_can_be_known_by_the_median_of_trained_trials():
    told = lines(13, 60.0, 1.0, 2.0, 2.0)
    assert not any("left" in line for line in told[:2])  # the first trial pays for the start
    assert told[2].endswith("about 20 s left)")
    assert told[3].endswith("about 18 s left)")


def test_repeats_are_no_measure():
    told = lines(9, None, 4.0, None, 4.0, None, 4.0)
    assert [("left" in line) for line in told] == [False] * 5 + [True]
    assert told[-1].endswith("about 12 s left)")


def test_several_workers_share_what_is_left():
    assert lines(10, 6.0, 6.0, 6.0, workers=4)[-1].endswith("about 12 s left)")


def test_nothing_is_left_at_the_end():
    assert "left" not in lines(3, 1.0, 1.0, 1.0)[-1]


def test_a_bar_on_a_terminal_tells_the_same():
    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(control, False)
    with os.fdopen(terminal, "w") as stream, Progress(13, stream=stream) as bar:
        bar.begin([])
        finish(bar, 60.0)
        first = os.read(control, 10_000).decode()
        finish(bar, 1.0, 2.0, 2.0)
        bar._bar.refresh()
        shown = os.read(control, 10_000).decode()
    os.close(control)
    assert "best 0.9" in first
    assert "left" not in first
    assert "?" not in first
    assert "4/13" in shown
    assert "about 18 s left" in shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_a_duration_is_written_in_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words
