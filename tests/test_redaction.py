"""No password in a URL is shown, however the URL is written."""

import shlex
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_tricks import InputError
from lightning_tricks.errors import check_url, one_line
from lightning_tricks.redaction import redacted, remember

MARK = "s3cr3t"
"""Start and end of every password: if it is not shown, no part of the password is."""
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text(
    "@:/?#&%'\" \\", max_size=6
)
PASSWORDS = ANYTHING.map(lambda middle: f"{MARK}{middle}{MARK}")
SPACELESS = PASSWORDS.map(lambda password: "".join(password.split()))
NAMES = st.sampled_from(["", "u", "user.name", "user@tenant", "ü", "p%40q"])
SCHEMES = st.sampled_from(["postgresql", "postgresql+psycopg", "mysql", "http", "https", "ray", "s3"])
TAILS = st.sampled_from(["", ":5432", ":5432/optuna", "/a/b?x=1", "/db?sslmode=require"])
KEYS = st.sampled_from(
    ["password", "PASSWORD", "pwd", "sslpassword", "access_token", "api_key", "pass%77ord"]
)


@st.composite
def urls(draw, passwords=PASSWORDS):
    password = draw(passwords)
    password = draw(st.sampled_from([password, quote(password, safe=""), quote(password)]))
    start, tail = f"{draw(SCHEMES)}://{draw(NAMES)}", draw(TAILS)
    if draw(st.booleans()):
        return f"{start}:{password}@host.example{tail}"
    query = quote(password, safe="@/:?") if "&" in password else password
    return f"{start}@host.example/db?x=1&{draw(KEYS)}={query}&y=2"


@given(urls())
def test_no_url_shows_its_password(url):
    shown = redacted(url, whole=True)
    assert MARK not in shown
    assert "host.example" in shown
    assert redacted(shown, whole=True) == shown


@given(st.lists(urls(SPACELESS.filter(str.isprintable)), min_size=1, max_size=4))
def test_no_text_shows_a_password(found):
    text = "cannot be opened: " + " and ".join(found) + ", start a server"
    shown = redacted(text)
    assert MARK not in shown
    assert shown.startswith("cannot be opened: ")
    assert shown.endswith(" start a server")
    assert shown.count("host.example") == len(found)
    assert MARK not in one_line(RuntimeError(text))
    assert MARK not in str(InputError(text))


@given(st.lists(urls(SPACELESS.filter(str.isprintable)), min_size=1, max_size=3))
def test_no_command_shows_a_password(found):
    assert MARK not in redacted(shlex.join(["python", "study.py", "--storage", *found]))
    assert MARK not in redacted(shlex.join([f"--storage={url}" for url in found]))


@given(urls(PASSWORDS.filter(lambda password: "@" not in password)), st.integers(1, 60))
@example("postgresql://u:s3cr3t%40s3cr3t@host.example", 20)
def test_no_url_that_was_cut_off_shows_more_of_a_password_than_a_port_has(url, length):
    assert MARK not in redacted(url[: len("postgresql+psycopg://user@tenant:") + length], whole=True)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///mlflow.db",
        "sqlite:////data/a:b@c/optuna.db",
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=x&viewStateShareKey=trials",
        "(got http://127.0.0.1:9); start the server",
        "postgresql+psycopg://tricks@127.0.0.1:5432/postgres?connect_timeout=5",
        "http://[::1]:5000 does not answer",
        "HTTPConnectionPool(host='h', port=80): https://docs.example/a:b",
        "python study.py --n-trials 3 --ray-address auto",
    ],
)
def test_what_is_no_password_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://:pw@h", "postgresql://:***@h"),
        ("postgresql://u:p@w/x:y@h:1/db", "postgresql://u:***@h:1/db"),
        ("postgresql://h/db?user=u&password=pw&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("mssql://h?odbc_connect=SERVER%3Dh%3BPWD%3Dpw", "mssql://h?odbc_connect=***"),
        ("postgresql://u:a long o", "postgresql://u:***"),
    ],
)
def test_what_is_left_of_a_url(url, shown):
    assert redacted(url, whole=True) == shown


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@w@h/db", "http://u:p/w@h:5000", "http://u:p#w@h", "postgresql://u:p w@h"]
)
def test_a_password_that_would_be_read_in_part_is_refused(url):
    with pytest.raises(InputError, match=r"must be written as %\w\w.*\*\*\*@h"):
        check_url(url)


def test_a_password_that_is_read_whole_is_taken():
    for url in ("postgresql://u:p/w:x@h", "http://u:p@w@h", "postgresql://u:p%40w@h", "sqlite:///a@b"):
        check_url(url)


FORMS = [
    "databricks://u:{}@host.example",
    "http://{}@host.example/x",
    "databricks://{}@host.example",
    "u:{}@host.example/x",
    "[Errno 2] No such file or directory: 'postgresql:/u:{}@host.example/x'",
    "postgresql://u:{}",
    "http://u:{}",
    "cannot be opened (got postgresql:/u:{}@host.example), nor u:{}@host.example",
]


@given(st.sampled_from(FORMS), SPACELESS.filter(str.isprintable))
def test_other_forms_that_errors_have_show_none(form, password):
    text = form.format(*[quote(password, safe="")] * 2)
    assert MARK not in redacted(text)
    assert MARK not in one_line(OSError(text))


@given(SPACELESS.filter(lambda password: password.isprintable() and "@" not in password))
@example(f"{MARK}:/:{MARK}")
def test_what_a_driver_repeats_of_a_url_is_hidden(password):
    remember(f"postgresql://u:{password}")
    assert MARK not in redacted(f"nonnumeric port: {password!r} and {quote(password, safe='')}x")
