"""The fields of a trick: a table, and an example recipe in Python and in YAML."""

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from lightning_tricks.space.domains import Choice, Domain, Float, Int, OneMinus
from lightning_tricks.space.trick import Trick

_EXAMPLE = """```python
from lightning_tricks import Tricks

tricks = Tricks({stage}={shown})
```

The same in a file for `--space`; every trial then has it:

```yaml
pin:
  {stage}: {pinned}
```
"""


def hyperparameters(trick: type[Trick]) -> list[str]:
    """Return the lines of a table: type, default, valid values and domain of each field."""
    fields = {name: field for name, field in trick.model_fields.items() if name != "kind"}
    if not fields:
        return ["It has none."]
    rows = [
        f"| `{name}` | {_type(field)} | {_number(field.default)} | {_valid(field)} | {_domain(field)} |"
        for name, field in fields.items()
    ]
    return ["| field | type | default | valid | searched |", "| --- | --- | --- | --- | --- |", *rows]


def _type(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(field.annotation))
    return f"`{getattr(field.annotation, '__name__', field.annotation)}`"


def _valid(field: FieldInfo) -> str:
    bounds = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {_number(getattr(item, bound))}"
        for item in field.metadata
        for bound, sign in bounds.items()
        if hasattr(item, bound)
    ]
    return ", ".join(found) or "any"


def _domain(field: FieldInfo) -> str:
    for domain in (item for item in field.metadata if isinstance(item, Domain)):
        if isinstance(domain, OneMinus):
            low, high = domain.extremes()
            return f"{_number(low)} to {_number(high)}, its distance to one on a log scale"
        if isinstance(domain, Float | Int):
            scale = ", on a log scale" if domain.log else ""
            return f"{_number(domain.low)} to {_number(domain.high)}{scale}"
        if isinstance(domain, Choice):
            return ", ".join(f"`{option}`" for option in domain.options)
    return "no"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def example(stage: str, kind: str, trick: type[Trick]) -> str:
    """Return an example that asks for a trick, with the defaults of its searched fields."""
    searched = {
        name: field.default
        for name, field in trick.model_fields.items()
        if any(isinstance(item, Domain) for item in field.metadata)
    }
    words = ", ".join(
        f"{n}: {str(v).lower() if isinstance(v, bool) else v}" for n, v in searched.items()
    )
    value = {"kind": kind, **searched} if searched else kind
    pinned = f"{{kind: {kind}, {words}}}" if searched else kind
    shown = repr(value).replace("'", '"')
    return _EXAMPLE.format(stage=stage, shown=shown, pinned=pinned)
