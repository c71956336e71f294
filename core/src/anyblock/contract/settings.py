"""Typed settings: the base of every section of the configuration, core's own and those of extensions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys are refused and types are strict (`"1"` is not an integer).

    An extension derives from it to give its kind settings of its own. Every field has a `description`: it is the documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with every default written out; the same settings always give the same result."""
        return self.model_dump(mode="json")


Positive = Annotated[int, Field(ge=1)]
"""An integer above 0."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A number between 0 and 1, neither included."""
Names = Annotated[tuple[str, ...], Field(strict=False)]
"""Names; a YAML list is accepted although the rest of the section is strict."""
