"""Reads small YAML files of plain data; ambiguous or huge content is an error."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lightning_tricks.errors import InputError, one_line, shown

MOST_BYTES = 50_000
"""Size limit of a file, in bytes. The parser takes a second for it; usual files have a hundredth."""
MOST_DEEP = 20
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def read_yaml(path: str | Path) -> Any:
    """Return the data of a YAML file with one document.

    Raises:
        InputError: if the file cannot be read, is empty, too long or malformed, gives a key twice, is
            nested deeply, or has aliases, which can expand beyond the memory.
    """
    text = _text(path)
    try:
        _check_events(text)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            raise InputError("holds nothing")
        _check_keys(node, ())
        return yaml.safe_load(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: malformed YAML ({one_line(error)})") from None


def _text(path: str | Path) -> str:
    file = Path(path).expanduser()
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for its writer
            raise ValueError("it is not a file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES} bytes")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error})") from None


def _check_events(text: str) -> None:
    """Refuse YAML that would expand to huge data or be slow to read."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"aliases are not allowed; write out what *{event.anchor} stands for")
        if isinstance(event, yaml.ScalarEvent) and not event.style and _SIXTIES.fullmatch(event.value):
            raise InputError(
                f"{event.value} is a base-60 number in YAML: quote it, or write it without colons"
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEEP:
            raise InputError(f"lists and mappings must not be nested {depth} deep")


def _check_keys(node: yaml.Node, path: Iterable[str]) -> None:
    """Refuse a key that a mapping has twice; YAML would take the last one."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)
        inner = (*path, name)
        if name in seen:
            raise InputError(
                f"{'.'.join(inner)}: is given twice, in lines {seen[name].start_mark.line + 1} and "
                f"{value.start_mark.line + 1} (got {_words(seen[name])} and {_words(value)})"
            )
        seen[name] = value
        _check_keys(value, inner)


def _words(node: yaml.Node) -> str:
    return (
        shown(node.value)
        if isinstance(node, yaml.ScalarNode)
        else f"a {type(node).__name__.removesuffix('Node').lower()}"
    )
