"""What is found after a search, as it is kept with the study."""

from dataclasses import asdict
from typing import Any, ClassVar, Self, cast

from pydantic import TypeAdapter, ValidationError

from lightning_tricks.errors import damaged, one_line


class Kept:
    """The base of a dataclass that a storage keeps as plain data."""

    WHAT: ClassVar[str]
    """What it is, for the message of an error."""

    @classmethod
    def read(cls, data: Any) -> Self:
        """Read it as it is kept.

        Raises:
            InputError: if it is something else.
        """
        try:
            found: Self = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            raise damaged(cls.WHAT, one_line(error, 80)) from None
        return found

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(cast(Any, self))
