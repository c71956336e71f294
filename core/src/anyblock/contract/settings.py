"""Typed settings: the base of every section of the configuration, core's own and those of extensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anyblock.errors import UsageError

_S = TypeVar("_S", bound="Section")


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys are refused and types are strict (`"1"` is not an integer).

    An extension derives from it to give its kind settings of its own. Every field has a `description`: it is the documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with every default written out; the same settings always give the same result."""
        return self.model_dump(mode="json")


class Configured:
    """An object with settings of its own: `settings` is their class, and `settings_given` holds them."""

    settings: ClassVar[type[Section]] = Section

    def __init__(self, settings: Section | None = None) -> None:
        self.settings_given: Any = settings if settings is not None else self.settings()


Positive = Annotated[int, Field(ge=1)]
"""An integer above 0."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A number between 0 and 1, neither included."""
Names = Annotated[tuple[str, ...], Field(strict=False)]
"""Names; a YAML list is accepted although the rest of the section is strict."""


def read_settings(model: type[_S], given: Mapping[str, Any], of: str) -> _S:
    """Return settings that a caller gave by name.

    Args:
        model: the class of these settings.
        given: values by name; a text is read as YAML reads a number or a boolean.
        of: whose settings they are, for the message.

    Raises:
        UsageError: an unknown name, or a wrong value; all of them are listed.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
            for fault in error.errors(include_url=False)
        ]
        known = ", ".join(model.model_fields) or "none"
        raise UsageError(f"settings of {of}: {'; '.join(faults)}", expected=f"settings: {known}") from error
