"""The type is the search space: draw a frozen recipe of tricks from an Optuna trial.

Each field of a trick has a default, a validity (pydantic's) and, if it is searched, a *domain* (`Float`,
`Int`, `Choice` or `OneMinus`, as `Annotated` metadata). Everything else follows from the types.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from optuna.trial import BaseTrial
from pydantic.fields import FieldInfo

from lightning_tricks.errors import InputError, shown
from lightning_tricks.notebook import html_table
from lightning_tricks.space.documents import read_yaml
from lightning_tricks.space.domains import Choice, Domain, Fixed
from lightning_tricks.space.paths import domains_of, draw, one_of, paths_of
from lightning_tricks.space.trick import (
    Trick,
    kind_of,
    no_such_field,
    no_such_kind,
    owner_of,
    stages,
    variants,
)

T = TypeVar("T", bound=Trick)


def suggest(trial: BaseTrial, model: "type[T] | Space[T]") -> T:
    """Draw a recipe from an Optuna trial, for use in your own objective.

    Optuna's parameter names are paths, such as `optimizer` and `optimizer.adam.lr`. A parameter is
    drawn exactly if its variant was drawn.
    """
    space = model if isinstance(model, Space) else Space(model)
    return space.suggest(trial)


@dataclass(frozen=True)
class Space(Generic[T]):
    """The search space of a recipe type, which the user may pin and narrow.

    Example:
        space = Space(Tricks).pin({"normalization": "batch"}).narrow({"optimizer": ["adam", "sgd"]})
    """

    model: type[T]
    changed: Mapping[str, Domain] = dataclass_field(default_factory=dict)
    """Domains that differ from those of the type, by path."""

    def __post_init__(self) -> None:
        if not (isinstance(self.model, type) and issubclass(self.model, Trick)):
            raise InputError(f"a space needs a recipe type, such as Tricks (got {shown(self.model)})")

    @cached_property
    def domains(self) -> Mapping[str, Domain]:
        """The domain of every path, including fields that are not searched."""
        return {**dict(domains_of(self.model, "")), **self.changed}

    def pin(self, values: Mapping[str, Any]) -> "Space[T]":
        """Return the space with fields or stages fixed to one value.

        Args:
            values: values by path. A stage takes a kind (its hyperparameters are still searched), a
                mapping with a kind and the hyperparameters to pin too, or a whole trick.

        Raises:
            InputError: if a path does not exist, or is pinned or narrowed already, or a value is not
                valid.
        """
        space = self
        for path, value in values.items():
            for inner, pinned in self._expand(path, value):
                self._refuse_narrowed(inner)
                space = space._change(inner, Fixed(pinned))
        return space._checked()

    def narrow(self, domains: Mapping[str, Any]) -> "Space[T]":
        """Return the space with other domains of fields, or other kinds of stages.

        Args:
            domains: domains by path: a list of options, one kind, a domain, or a mapping `{low, high,
                log}`. Its bounds are values of the field, even if the search uses the distance to one.

        Raises:
            InputError: if a path does not exist or is pinned, or a domain is empty or not valid.
        """
        space = self
        for path, value in domains.items():
            field = self._field(path)  # raises if there is none
            one = isinstance(value, str) and variants(field)
            options = [value] if one else value
            space = space._change(path, Domain.parse(path, options, space.domains[path]))
        return space._checked()

    def only(self, *names: str, recipe: T | None = None) -> "Space[T]":
        """Return the space with all other stages pinned to a recipe.

        Args:
            names: the stages that are still searched, such as `optimizer`.
            recipe: the recipe; by default `model()`, the baseline.

        Raises:
            InputError: if a stage does not exist, or a part of another is pinned or narrowed already.

        Example:
            space = Space(Tricks).only("optimizer", "schedule")
        """
        for name in names:
            self._field(name)
            if "." in name:
                raise InputError(f"`only` takes whole stages (got {name!r}): narrow or pin the others")
        others = {path.partition(".")[0] for path in self.searched()} - set(names)
        held = self.model() if recipe is None else recipe
        return self.pin({stage: getattr(held, stage) for stage in sorted(others)})

    def without(self, stage: str, kinds: Collection[str]) -> "Space[T]":
        """Return the space without some kinds of a stage; at least one other kind must be left."""
        left = [kind for kind in self.domains[stage].extremes() if kind not in kinds]
        return replace(self, changed={**self.changed, stage: one_of(left)})

    def around(self, recipe: Trick) -> "Space[T]":
        """Return the space with a recipe's kinds fixed in each stage that would not propose them."""
        domains = self.domains
        kept = {
            stage: Fixed(kind_of(type(getattr(recipe, stage))))
            for stage in stages(self.model)
            if stage not in self.changed
            and kind_of(type(getattr(recipe, stage))) not in domains[stage].extremes()
        }
        return replace(self, changed={**self.changed, **kept})

    @classmethod
    def from_yaml(cls, model: type[T], path: str | Path) -> "Space[T]":
        """Return a space from a YAML file with the sections `pin` and `narrow`.

        Raises:
            InputError: if the file cannot be read or is malformed, or a name in it does not exist.
        """
        data = read_yaml(path)
        if not isinstance(data, dict) or not data or not set(data) <= {"pin", "narrow"}:
            raise InputError(
                f"{path}: must hold the sections `pin` and `narrow` only, or one of them "
                f"(got {shown(data)})"
            )
        sections: dict[str, Any] = {
            name: {} if data.get(name) is None else data[name] for name in ("pin", "narrow")
        }
        for name, section in sections.items():
            if not isinstance(section, dict) or not all(isinstance(key, str) for key in section):
                raise InputError(f"{path}: `{name}` must map paths to values (got {shown(section)})")
        try:
            return cls(model).pin(sections["pin"]).narrow(sections["narrow"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def suggest(self, trial: BaseTrial) -> T:
        """Draw a recipe from an Optuna trial."""
        domains = self.domains
        return self.model.parse(draw(self.model, "", lambda path: domains[path].draw(trial, path)))

    def nearest(self, recipe: Trick) -> T:
        """Return the recipe of this space that is closest to a given one, stage by stage.

        A pinned field gets its pinned value. A number outside its domain moves to the bound. A kind
        that is not in the space becomes the first kind that is, with its defaults.
        """
        return self.nearest_to(dict(paths_of(recipe, "")))

    def nearest_to(self, wanted: Mapping[str, Any]) -> T:
        """Return the recipe of this space that is closest to some values by path; see `nearest`."""
        domains = self.domains
        return self.model.parse(
            draw(
                self.model, "", lambda path: domains[path].nearest(wanted.get(path, self._default(path)))
            )
        )

    def params(self, recipe: T) -> dict[str, Any]:
        """Return the Optuna parameters that draw a recipe of this space."""
        encoded = (self.domains[path].encode(path, value) for path, value in paths_of(recipe, ""))
        return {name: value for pairs in encoded for name, value in pairs.items()}

    def searched(self) -> list[str]:
        """Return the paths in which trials may differ."""
        several = [path for path, domain in self.domains.items() if len(set(domain.extremes())) > 1]
        return [path for path in several if not self._never(path)]

    def check(self) -> None:
        """Check the defaults and domains of the recipe type, which its class creation does not check.

        Raises:
            InputError: if a field has no default, or a default or a domain is not valid.
        """
        self.model.parse({})
        for path, domain in self.domains.items():
            self._valid(path, domain)

    def describe(self) -> dict[str, Any]:
        """Return every path's domain as plain data; equal spaces have equal descriptions."""
        return {path: domain.describe() for path, domain in self.domains.items()}

    def __repr__(self) -> str:
        """Return the code that makes this space."""
        pinned = {path: d.value for path, d in self.changed.items() if isinstance(d, Fixed)}
        narrowed = {path: d for path, d in self.changed.items() if not isinstance(d, Fixed)}
        calls = {"pin": pinned, "narrow": narrowed}
        made = "".join(f".{call}({values!r})" for call, values in calls.items() if values)
        return f"Space({self.model.__name__}){made}"

    def _repr_html_(self) -> str:
        """Show the searched and the pinned fields in a notebook."""
        domains = self.domains
        searched = self.searched()
        rows = [(path, domains[path]) for path in domains if path in {*searched, *self.changed}]
        caption = f"{self.model.__name__}: {len(searched)} fields are searched"
        return html_table(("field", "values"), rows, caption)

    def _expand(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Split a pinned trick into its kind and its fields."""
        fields = value.model_dump() if isinstance(value, Trick) else value
        inside = [known for known in self.domains if known.startswith(f"{path}.")]
        if inside and path not in self.domains:  # one recipe, not a choice among several
            if not isinstance(fields, Mapping):
                raise InputError(
                    f"{path}: is a recipe, so pin its fields: {inside} (got {shown(value)})"
                )
            for name in fields:
                if name != "kind":
                    yield from self._expand(f"{path}.{name}", getattr(value, name, fields[name]))
            return
        if not variants(self._field(path)) or isinstance(value, str):
            yield path, value
            return
        options = variants(self._field(path))
        if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
            raise InputError(no_such_kind(path, options, value))
        yield path, fields["kind"]
        for name, inner in fields.items():
            if name != "kind":
                yield f"{path}.{fields['kind']}.{name}", inner

    def _field(self, path: str) -> FieldInfo:
        owner, name = self._owner(path)
        return owner.model_fields[name]

    def _owner(self, path: str) -> tuple[type[Trick], str]:
        """Return the class that a path's field belongs to, and the field's name."""
        if path not in self.domains:
            raise InputError(no_such_field(path, self.model, path, self.domains))
        parts = path.split(".")
        return owner_of(self.model, parts), parts[-1]

    def _default(self, path: str) -> Any:
        default = self._field(path).get_default(call_default_factory=True)
        return kind_of(type(default)) if isinstance(default, Trick) else default

    def _change(self, path: str, domain: Domain) -> "Space[T]":
        self._field(path)
        if path in self.changed and isinstance(self.changed[path], Fixed):
            raise InputError(f"{path}: is pinned to {self.changed[path].describe()} already")
        return replace(self, changed={**self.changed, path: self._valid(path, domain)})

    def _refuse_narrowed(self, path: str) -> None:
        held = self.changed.get(path)
        if held is not None and not isinstance(held, Fixed):
            raise InputError(
                f"{path}: is narrowed to {held.describe()} already; pin it or narrow it, not both"
            )

    def _valid(self, path: str, domain: Domain) -> Domain:
        """Check the domain's bounds or options against the validity of the field."""
        owner, name = self._owner(path)
        options = variants(owner.model_fields[name])
        if options:
            for value in domain.extremes():
                if value not in options:
                    raise InputError(no_such_kind(path, options, value))
            return domain
        try:
            # Pydantic converts them: YAML reads 1e-3 as a string.
            valid = [getattr(owner.model_validate({name: v}), name) for v in domain.extremes()]
        except InputError as error:
            raise InputError(f"{path.removesuffix(name)}{error}") from None
        if isinstance(domain, Fixed):
            return Fixed(*valid)
        return Choice(*valid) if isinstance(domain, Choice) else domain

    def _checked(self) -> "Space[T]":
        """Refuse a change to a field that can never be active."""
        for path in self.changed:
            if never := self._never(path):
                kinds = list(self.domains[never].extremes())
                kind = path.removeprefix(f"{never}.").partition(".")[0]
                raise InputError(
                    f"{path}: is never used, because {never} is always one of {kinds}; leave it out or "
                    f"allow {kind!r}"
                )
        return self

    def _never(self, path: str) -> str:
        """Return the stage whose kinds rule out a field; empty if there is none."""
        domains = self.domains
        parts = path.split(".")
        for end in range(1, len(parts)):
            stage = ".".join(parts[:end])
            if stage in domains and parts[end] not in domains[stage].extremes():
                return stage
        return ""
