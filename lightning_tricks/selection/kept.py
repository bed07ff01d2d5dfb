"""Results that are stored with a study after its search."""

from dataclasses import asdict
from typing import Any, ClassVar, Self, cast

from pydantic import TypeAdapter, ValidationError

from lightning_tricks.errors import damaged, one_line


class Kept:
    """Base of a dataclass that is stored as plain data."""

    WHAT: ClassVar[str]
    """Name of the result, for error messages."""

    @classmethod
    def read(cls, data: Any) -> Self:
        """Read it from stored plain data.

        Raises:
            InputError: if the data are damaged.
        """
        try:
            found: Self = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            raise damaged(cls.WHAT, one_line(error, 80)) from None
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(cast(Any, self))
