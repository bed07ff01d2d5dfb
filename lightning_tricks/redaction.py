"""Hides passwords in URLs, in everything that is printed, warned of or recorded.

In a malformed URL the password goes up to the last `@`. If in doubt, we hide a word too many rather than
show part of a password. One case cannot be told from a host: a password that holds an `@`, instead of
%40, in a URL that was cut off after it. `check_url` refuses databases' URLs with such a password.
"""

import re
from urllib.parse import quote, unquote_plus

_STARS = "***"
_START = r"(?:[A-Za-z][\w+.-]*:/{1,2}|//)"
"""Start of a URL; a URL that was converted to a path has a single slash."""
_BARE = r"[\w.%+~-]+:(?!/)"
"""Start of a URL without its scheme: a user name."""
_IN_TEXT = re.compile(rf"{_START}\S+|{_BARE}\S*@\S+")
_WHOLE = re.compile(rf"{_START}.+|{_BARE}.*@.+", re.DOTALL)
_PASSWORD = re.compile(rf"^({_START}[^:/]*|[\w.%+~-]+):(?!/{{1,2}})(.*)@", re.DOTALL)
_TOKEN = re.compile(r"^((?!postgresql|mysql|mssql|sqlite|models)\w[\w+.-]*:/{1,2})[^/@?#]+@", re.DOTALL)
"""A user name without a password is a token, except that of a database."""
_CUT_OFF = re.compile(r"^(\w[\w+.-]*:/{1,2}[^:/\[]*):(?!\d{1,5}(?!\w)).+", re.DOTALL)
"""A password without a host after it, because the URL was cut off; a port does not count."""
_SHORTEST = 4
"""Length of the shortest password to hide outside URLs; a shorter one may be part of any word."""
_known: set[str] = set()
"""Passwords of the given URLs, because drivers repeat them without the URL."""
_PAIR = re.compile(r"(?<=[?&])[^&]+")
_SECRET = re.compile(
    r"(pass|pwd|secret|token|credential|signature|(api|access|private|account)[ _-]?key"
    r"|^(auth|key|sig))[\w -]*=",
    re.IGNORECASE,
)
"""Names of secret values, in a query or in a list of settings inside a query's value."""


def redacted(text: str, *, whole: bool = False) -> str:
    """Return a text with the passwords in its URLs hidden.

    Args:
        text: a text with any number of URLs; a space ends a URL.
        whole: whether the text is one URL or one command argument, which may contain spaces.
    """
    # Known passwords before, because one may look like a URL and be hidden only in part; and again
    # after, because hiding the text around a password can reveal it.
    shown = (_WHOLE if whole else _IN_TEXT).sub(lambda found: _hide(found[0]), _without_known(text))
    return _without_known(shown)


def _without_known(text: str) -> str:
    for password in sorted(_known, key=len, reverse=True):  # one may be part of another
        text = text.replace(password, _STARS)
    return text


def remember(url: str) -> None:
    """Hide the password of a URL everywhere from now on."""
    password = password_of(url)
    if not password and (cut := _CUT_OFF.match(url)):
        password = url[cut.end(1) + 1 :]
    forms = (password, unquote_plus(password), quote(password, safe=""))
    written = (*forms, *(repr(form)[1:-1] for form in forms))
    _known.update(form for form in written if len(form) >= _SHORTEST)


def password_of(url: str) -> str:
    """Return the password of a URL, which may be malformed; empty if there is none."""
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
