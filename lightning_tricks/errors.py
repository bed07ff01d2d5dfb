"""Errors in one line; `InputError` means that the input was wrong, not the program."""

import re
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

from lightning_tricks.redaction import password_of, redacted, remember

NAME = re.compile(r"\w[\w .-]{0,99}")
"""Pattern of study names, which also name a folder, an experiment and a registered model."""


class InputError(ValueError):
    """Input that breaks a rule; the one-line message states the rule, the value and the remedy.

    A study script prints the message and ends with exit code 2. In Python it is a `ValueError`. The
    message hides passwords in URLs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


ENDING = (SystemExit, GeneratorExit, CancelledError)
"""Exceptions that are no errors in themselves; user code that raises one must not end a study."""


class UnknownStudy(InputError):
    """The storage can be read, but holds no study of this name."""


class Unfinished(RuntimeError):
    """A study ended early, but not because of its input; the same command continues it.

    A study script prints the one-line message and ends with exit code 5.
    """


class TakenOver(BaseException):
    """Another program took over the study, so this one writes nothing more; exit code 4.

    Like `KeyboardInterrupt` it is no `Exception`, so that no error handler swallows it.
    """


def shown(value: object, most: int = 200) -> str:
    """Return a value in one line, as code; a long one is cut off."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python cannot print an integer of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}…"


def check_name(name: str) -> str:
    """Return the name if it is valid for a study.

    Raises:
        InputError: if it has other characters, or is too long.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise InputError(
            "a name must be 1 to 100 letters, digits, spaces, dots, dashes or underscores, and begin "
            f"with a letter or digit (got {quoted(str(name), 120)})"
        )
    return name


def whole_number(name: str, value: object, least: int) -> int:
    """Return a whole number, which may be NumPy's, as an int.

    Raises:
        InputError: if it is no whole number, or is too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least} (got {value!r})")
    return int(value)


def check_url(url: str) -> None:
    """Check that the password in a URL is read completely.

    Raises:
        InputError: if a character in the password would end it early.
    """
    remember(url)
    ends = "/?#" if url.startswith(("http:", "https:")) else "@"
    if found := [sign for sign in password_of(url) if sign in ends or sign.isspace()]:
        raise InputError(
            f"{found[0]!r} in the password of a URL must be written as %{ord(found[0]):02X}; or set the "
            f"password in the environment (got {redacted(url, whole=True)})"
        )


def quoted(text: str, most: int = 40) -> str:
    """Return a text in quotes for an error message, without passwords and cut to `most` characters."""
    return repr(redacted(text, whole=True)[:most])


def one_line(error: BaseException, most: int = 200) -> str:
    """Return an exception's message in one line, without passwords and cut to `most` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = redacted(text)
    return text if len(text) <= most else f"{text[:most]}…"


def error_words(error: BaseException) -> str:
    """Return an exception of the user's code in one line, with its type."""
    return f"{type(error).__name__}: {one_line(error)}"


@contextmanager
def user_code(
    what: str, hint: str = "", of: tuple[type[BaseException], ...] = (BaseException,)
) -> Iterator[None]:
    """Turn exceptions of the user's code into an `InputError`.

    Args:
        what: the beginning of the message: what went wrong.
        hint: the end of the message: what to do.
        of: the types of exceptions to catch.

    Raises:
        InputError: for any exception of these types, including `SystemExit`.
        KeyboardInterrupt: for Ctrl-C, which Lightning turns into `SystemExit`.
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
    """Tell whether an exception comes from Ctrl-C or from a signal to end."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "SIGTERMException":
            return True
        error = error.__context__
    return False


def _place(error: BaseException) -> str:
    """Return the file and line in the user's code where an exception was raised; empty if none."""
    own = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.suffix == ".py" and not path.is_relative_to(own) and "site-packages" not in path.parts:
            return f" ({path.name}, line {frame.lineno})"
    return ""


def damaged(what: str, why: str) -> InputError:
    """Return the error for damaged data in a storage.

    Args:
        what: the name of the data, such as `verdict`.
        why: why they are not valid.
    """
    return InputError(
        f"the storage is damaged: the {what} is not what a study writes ({why}); restore a backup, "
        "or choose another --study-name"
    )


def locked(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is a locked SQLite file."""
    while error is not None and "database is locked" not in str(error):
        error = error.__cause__
    return error is not None
