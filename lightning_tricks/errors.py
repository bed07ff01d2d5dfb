"""The one exception that means "the input was wrong", as against a defect of the program."""

import re
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

from lightning_tricks.redaction import password_of, redacted, remember

NAME = re.compile(r"\w[\w .-]{0,99}")
"""Names of studies: they name a folder, an experiment and a registered model as well."""


class InputError(ValueError):
    """Input that breaks a rule: its one-line message states the rule, the value and the remedy.

    A study script prints the message and ends with exit code 2; a library user catches it as the
    `ValueError` it is. Passwords in URLs are taken out of the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


ENDING = (SystemExit, GeneratorExit, CancelledError)
"""Exceptions that are no mistakes by themselves, and that no study is to end by."""


class UnknownStudy(InputError):
    """A storage that can be read holds no study of a name."""


class Unfinished(RuntimeError):
    """A study ended before its time, and not by its input; the same command goes on with it.

    A study script prints the one-line message and ends with exit code 5.
    """


class TakenOver(BaseException):
    """Another program took the study over, so this one writes nothing more; exit code 4.

    No handler of mistakes is to swallow it, so it is no `Exception`, as `KeyboardInterrupt` is none.
    """


def shown(value: object, most: int = 200) -> str:
    """Write a value in a line, as it would be typed: without end it is cut off."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}…"


def check_name(name: str) -> str:
    """Return a name if it will do as that of a study.

    Raises:
        InputError: if it holds other characters, or is too long.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise InputError(
            "a name must be 1 to 100 letters, digits, spaces, dots, dashes or underscores, and begin "
            f"with a letter or digit (got {quoted(str(name), 120)})"
        )
    return name


def whole_number(name: str, value: object, least: int) -> int:
    """Return a whole number, NumPy's too.

    Raises:
        InputError: if it is none, or is too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least} (got {value!r})")
    return int(value)


def check_url(url: str) -> None:
    """Check that the password in a URL is read as it was meant.

    Raises:
        InputError: if a character in it would be taken for the end of it.
    """
    remember(url)
    ends = "/?#" if url.startswith(("http:", "https:")) else "@"
    if found := [sign for sign in password_of(url) if sign in ends or sign.isspace()]:
        raise InputError(
            f"{found[0]!r} in the password of a URL must be written as %{ord(found[0]):02X}, or the "
            f"password be given in the environment (got {redacted(url, whole=True)})"
        )


def quoted(text: str, most: int = 40) -> str:
    """Quote what was given for an error: without passwords, and without end."""
    return repr(redacted(text, whole=True)[:most])


def one_line(error: BaseException, most: int = 200) -> str:
    """Write another's exception in a line: without passwords, and without end."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = redacted(text)
    return text if len(text) <= most else f"{text[:most]}…"


def error_words(error: BaseException) -> str:
    """Write an exception of the user's code in a line, with its kind."""
    return f"{type(error).__name__}: {one_line(error)}"


@contextmanager
def user_code(
    what: str, hint: str = "", of: tuple[type[BaseException], ...] = (BaseException,)
) -> Iterator[None]:
    """Run what the user wrote, which may raise anything.

    Args:
        what: it did not do, with which the error begins.
        hint: with which it ends.
        of: kinds of exceptions.

    Raises:
        InputError: whatever was raised, `SystemExit` too.
        KeyboardInterrupt: for Ctrl-C, to which Lightning answers with `SystemExit`.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, TakenOver):
        raise
    except of as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from None
        why = f"{error_words(error)}{_place(error)}"
        raise InputError(f"{what}: {why}{hint and '; '}{hint}") from None


def is_interrupt(error: BaseException | None) -> bool:
    """Tell whether an exception comes of Ctrl-C, or of a signal to end."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "SIGTERMException":
            return True
        error = error.__context__
    return False


def _place(error: BaseException) -> str:
    """Say where in the user's own files an exception was raised, if it was there."""
    own = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.suffix == ".py" and not path.is_relative_to(own) and "site-packages" not in path.parts:
            return f" ({path.name}, line {frame.lineno})"
    return ""


def damaged(what: str, why: str) -> InputError:
    """Return the error of something in a storage that is not what was written there.

    Args:
        what: it is, such as `verdict`.
        why: it cannot be that, in words.
    """
    return InputError(
        f"the storage is damaged: the {what} is not what a study writes ({why}); put a backup in its "
        "place, or choose another --study-name"
    )


def locked(error: BaseException | None) -> bool:
    """Return whether an error, or what it came of, is that a SQLite file is locked."""
    while error is not None and "database is locked" not in str(error):
        error = error.__cause__
    return error is not None
