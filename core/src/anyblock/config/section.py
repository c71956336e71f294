"""What every section of the configuration has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from anyblock.errors import AnyBlockError


class Section(BaseModel):
    """A frozen part of the configuration: unknown keys are refused and types are strict (`"1"` is no integer)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with every default written out; the same settings always give the same result."""
        return self.model_dump(mode="json")


def in_one_line(error: AnyBlockError) -> str:
    """Return what an error says on one line, for a list of several."""
    parts = (error.what, f"expected {error.expected}" if error.expected else "", error.hint)
    return "; ".join(part for part in parts if part)


Positive = Annotated[int, Field(ge=1)]
"""An integer above 0."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A number between 0 and 1, neither included."""
Names = Annotated[tuple[str, ...], Field(strict=False)]
"""Names; a YAML list is accepted although the rest of the section is strict."""
