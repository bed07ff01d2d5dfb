"""Passwords in URLs: taken out of everything that is printed, warned of or recorded.

A URL that is wrong is read as whoever wrote it meant it: its password goes up to the last `@`, whatever
stands in between. Rather a word too many is hidden than a part of a password shown.
"""

import re
from urllib.parse import quote, unquote_plus

_STARS = "***"
_START = r"(?:[A-Za-z][\w+.-]*:/{1,2}|//)"
"""Of a URL; a path that was made of one has a single slash."""
_BARE = r"[\w.%+~-]+:(?!/)"
"""Of a URL without its scheme: a user name."""
_IN_TEXT = re.compile(rf"{_START}\S+|{_BARE}\S*@\S+")
_WHOLE = re.compile(rf"{_START}.+|{_BARE}.*@.+", re.DOTALL)
_PASSWORD = re.compile(rf"^({_START}[^:/]*|[\w.%+~-]+):(?!/{{1,2}})(.*)@", re.DOTALL)
_TOKEN = re.compile(r"^((?!postgresql|mysql|mssql|sqlite|models)\w[\w+.-]*:/{1,2})[^/@?#]+@", re.DOTALL)
"""A user name without a password is a token, except that of a database."""
_CUT_OFF = re.compile(r"^(\w[\w+.-]*:/{1,2}[^:/\[]*):(?!\d{1,5}(?!\w)).+", re.DOTALL)
"""A password that is followed by no host, for its URL was cut off; ports are none."""
_SHORTEST = 4
"""Fewer characters are not looked for by themselves: they may be part of any word."""
_known: set[str] = set()
"""Passwords of URLs that were given: drivers repeat them without the URL."""
_PAIR = re.compile(r"(?<=[?&])[^&]+")
_SECRET = re.compile(
    r"(pass|pwd|secret|token|credential|signature|(api|access|private|account)[ _-]?key"
    r"|^(auth|key|sig))[\w -]*=",
    re.IGNORECASE,
)
"""Names in a query, or in a list of settings that is itself a value there, whose values are secret."""


def redacted(text: str, *, whole: bool = False) -> str:
    """Return a text with the passwords in its URLs hidden.

    Args:
        text: with any number of URLs, each up to the next space.
        whole: whether the text is one URL or one argument of a command, in which a space ends nothing.
    """
    # Known ones before, for one may look like a URL of which a part is hidden; and after, where it was
    # shown by what was hidden around it.
    shown = (_WHOLE if whole else _IN_TEXT).sub(lambda found: _hide(found[0]), _without_known(text))
    return _without_known(shown)


def _without_known(text: str) -> str:
    for password in sorted(_known, key=len, reverse=True):  # one may be a part of another
        text = text.replace(password, _STARS)
    return text


def remember(url: str) -> None:
    """Have the password of a URL hidden wherever it is written from now on."""
    password = password_of(url)
    if not password and (cut := _CUT_OFF.match(url)):
        password = url[cut.end(1) + 1 :]
    forms = (password, unquote_plus(password), quote(password, safe=""))
    written = (*forms, *(repr(form)[1:-1] for form in forms))
    _known.update(form for form in written if len(form) >= _SHORTEST)


def password_of(url: str) -> str:
    """Return what stands where the password of a URL is meant to be; empty if there is none."""
    found = _PASSWORD.match(url)
    return found[2] if found else ""


def _hide(url: str) -> str:
    shown, hidden = _PASSWORD.subn(rf"\1:{_STARS}@", url)
    if not hidden:
        shown = _CUT_OFF.sub(rf"\1:{_STARS}", _TOKEN.sub(rf"\1{_STARS}@", url))
    return _PAIR.sub(_hide_value, shown)


def _hide_value(pair: re.Match[str]) -> str:
    if not _SECRET.search(unquote_plus(pair[0])):
        return pair[0]
    return f"{pair[0].partition('=')[0]}={_STARS}"
