"""`Trick`: a frozen recipe of hyperparameters, and functions that read its type.

A *trick* is a frozen pydantic model. A *stage* is a field that is a union of tricks; a literal `kind`
tells them apart. The kind's name alone means the trick with its defaults.
"""

import contextlib
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lightning_tricks.errors import InputError, shown


class Trick(BaseModel):
    """A frozen recipe of hyperparameters: one training trick, or a recipe of several stages.

    Unknown fields, NaN and infinite numbers are refused. Every field needs a default.

    Raises:
        InputError: if a field is unknown or invalid; names its path and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    neutral: ClassVar[bool] = False
    """Whether this variant switches its stage off."""
    searched: ClassVar[bool] = True
    """Whether a search proposes this variant even if the user does not name it."""
    changes_layers: ClassVar[bool] = False
    """Whether it changes the layers of a network, and may find none to change."""
    changes_weights: ClassVar[bool] = False
    """Whether it draws weights or freezes them when a module is made, and may find none."""
    changes_batch: ClassVar[bool] = False
    """Whether it changes the samples of a batch, and needs certain inputs or targets."""
    needs_forward: ClassVar[bool] = False
    """Whether it acts in our own forward, which a user's LightningModule does not have."""
    structural: ClassVar[Literal["", "kind", "fields"]] = ""
    """What the trainings of a group must share: nothing, its kind, or all its fields."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Names of this variant in other libraries, each with its name here."""

    def __init__(self, **fields: Any) -> None:
        with _in_a_line(type(self)):
            super().__init__(**fields)

    # Only the outermost recipe raises, with the whole path: pydantic makes the inner ones itself.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # as pydantic's RootModel does

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        with _in_a_line(cls):
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        with _in_a_line(cls):
            return super().model_validate_json(json_data, **options)

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Return the recipe from plain data, such as from JSON or YAML.

        Raises:
            InputError: if a field is unknown or invalid; names its path and the value.
        """
        return cls.model_validate(data)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        """Read a kind's name as its variant, and refuse booleans as numbers."""
        if not isinstance(data, Mapping):
            return data
        fields = cls.model_fields
        return {
            name: _plain(value, fields[name]) if name in fields else value
            for name, value in data.items()
        }

    def flatten(self) -> dict[str, Any]:
        """Return the recipe as one flat mapping: `optimizer: adam`, `optimizer.lr: 0.002`."""
        return dict(_flatten(self, ""))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out the defaults: `Tricks(optimizer=Adam(lr=0.01))`."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.get_default(call_default_factory=True, validated_data={}):
                yield name, value

    def __str__(self) -> str:
        return repr(self)


def variants(field: FieldInfo) -> dict[str, type[Trick]]:
    """Return the variants of a stage by kind; empty for a field that is not a stage."""
    if get_origin(field.annotation) not in (typing.Union, types.UnionType):
        return {}
    return {
        kind_of(option): option
        for option in get_args(field.annotation)
        if isinstance(option, type) and issubclass(option, Trick)
    }


def _kinds(field: FieldInfo) -> dict[str, type[Trick]]:
    """Return the variants of a field by kind, even if there is only one."""
    only = field.annotation
    if isinstance(only, type) and issubclass(only, Trick) and "kind" in only.model_fields:
        return {kind_of(only): only}
    return variants(field)


def _plain(value: Any, field: FieldInfo) -> Any:
    if isinstance(value, str) and _kinds(field):
        return {"kind": value}
    if isinstance(value, bool) and field.annotation in (int, float):
        return str(value)  # pydantic would read it as 0 or 1
    return value


def kind_of(trick: type[Trick]) -> str:
    """Return the literal that identifies a variant within its stage.

    Raises:
        TypeError: if the class has no `kind: Literal["..."] = "..."` field.
    """
    field = trick.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        raise TypeError(f'{trick.__name__} must have a field `kind: Literal["…"] = "…"`')
    kind: str = get_args(field.annotation)[0]
    return kind


def stages(model: type[Trick]) -> dict[str, dict[str, type[Trick]]]:
    """Return the variants by kind of every stage of a recipe type, by field name."""
    found = {name: variants(field) for name, field in model.model_fields.items()}
    return {name: options for name, options in found.items() if options}


def owner_of(model: type[Trick], path: Sequence[Any]) -> type[Trick]:
    """Return the class that the last field of a path belongs to.

    Raises:
        LookupError: if there is no such path.
    """
    *way, _ = path
    while way:
        field = model.model_fields[way.pop(0)]
        options = variants(field)
        model = options[way.pop(0)] if options else typing.cast(type[Trick], field.annotation)
    return model


def no_such_field(path: str, model: type[Trick], name: str, known: Iterable[str]) -> str:
    """Return the message for a field that a recipe does not have."""
    return f"{path}: no such field in {model.__name__}{_meant(name, known)}"


def no_such_kind(path: str, options: Mapping[str, type[Trick]], value: Any) -> str:
    """Return the message for a value that is no variant of a stage."""
    if not isinstance(value, str):
        hint = f"; write {value.__name__}()" if value in options.values() else ""
        return f"{path}: must be a kind, one of {list(options)} (got {shown(value)}){hint}"
    known = {name: here for option in options.values() for name, here in option.elsewhere.items()}
    hint = f"; {value} is {known[value]} here" if value in known else _meant(value, options)
    return f"{path}: must be one of {list(options)} (got {shown(value)}){hint}"


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@contextlib.contextmanager
def _in_a_line(model: type[Trick]) -> Iterator[None]:
    """Raise pydantic's errors as one line: the path, the rule and the value."""
    try:
        yield
    except ValidationError as error:
        problems = [_problem(item, model) for item in error.errors()]
        raise InputError("; ".join(problems)) from None


def _problem(item: ErrorDetails, model: type[Trick]) -> str:
    path, value = item["loc"], item["input"]
    where = ".".join(map(str, path)) or model.__name__
    with contextlib.suppress(LookupError, ValueError):  # of the whole recipe, or a union without `kind`
        owner, name = owner_of(model, path), str(path[-1])
        if item["type"] == "extra_forbidden":
            return f"{no_such_field(where, owner, name, owner.model_fields)} (got {shown(value)})"
        options = _kinds(owner.model_fields[name])
        if options and item["type"] in _NO_KIND:
            kind = value.get("kind", value) if isinstance(value, Mapping) else value
            return no_such_kind(where, options, getattr(type(kind), "kind", kind))
    return f"{where}: {item['msg']} (got {shown(value)})"


_NO_KIND = ("union_tag_invalid", "union_tag_not_found", "model_attributes_type", "model_type")
"""Pydantic's error types for a stage whose value is none of its variants."""


def _flatten(recipe: Trick, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if isinstance(value, Trick):
            yield from _flatten(value, f"{prefix}{name}.")
        elif name == "kind":
            yield prefix.removesuffix("."), value
        else:
            yield prefix + name, value
