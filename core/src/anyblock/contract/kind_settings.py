"""The settings of a kind of pruning: which sizes are offered, and which hook ranks the units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import lcm
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from anyblock.contract.settings import Names, Positive, Section

_RELATIVE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(x|%)")


def _size(value: Any) -> Any:
    match = _RELATIVE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = float(match[1]) / (100 if match[2] == "%" else 1) if match else value
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise PydanticCustomError("size", "give a number of units (2048), a fraction (0.5), '0.5x' or '50%'")
    if not size > 0 or (isinstance(size, float) and not size < 1):
        raise PydanticCustomError("size", "a fraction lies between 0 and 1, and a number of units is at least 1")
    return size


Size = Annotated[int | float, BeforeValidator(_size)]
"""A number of units (integer), or a fraction of the teacher's own number (0.25, `0.25x` or `25%`)."""


class KindSettings(Section):
    """Candidates of one kind of pruning; the kind is the key under which this section stands."""

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(),
        description="Sizes to offer besides the teacher's own: units (2048), fractions (0.25), `0.25x` or `25%`. Empty: none.",
    )
    multiple: Positive | None = Field(
        default=None,
        description="Fractions are rounded to a multiple of so many units. `null`: what `pruning.sizes_for` needs, else 1.",
    )
    hook: str | None = Field(
        default=None,
        description="Importance hook that ranks the units, by its name. `null`: the first one the mixin supports.",
    )
    hook_options: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="Options passed to that hook, for instance `calibration_method`."
    )
    extra_hooks: Names = Field(
        default=(), description="Further hooks to fill in the same sweep; their scores are kept for comparison only."
    )
    target: str | None = Field(
        default=None,
        description="Module of the layer that the hook watches, for instance `mlp.down_proj`. `null`: the mixin's own.",
    )

    init: Literal["importance", "truncate"] = Field(
        default="importance",
        description="`importance`: keep the units that the hook ranks best. `truncate`: keep the first ones; no hook is filled.",
    )

    @property
    def offers(self) -> bool:
        """Whether any size is offered in addition to the teacher's own."""
        return bool(self.sizes)

    def absolute_sizes(
        self, teacher_size: int, *, query_heads: int | None = None, multiples: Sequence[int] = (1,)
    ) -> tuple[int, ...]:
        """Return the sizes in units, ascending, without duplicates and without the teacher's own.

        A fraction is rounded to the nearest multiple (at least one) that the teacher has; a number of units is taken as it stands.

        Args:
            teacher_size: the number of units of the unpruned subblock.
            query_heads: the attention's query heads, needed for `heads_per_group`.
            multiples: what suits the runtime, see `ExportFormat.width_multiples`; it counts where `multiple` is not set.

        Raises:
            ConfigError: an entry of `heads_per_group` does not divide the query heads, or these are not given.
        """
        suiting = next((each for each in multiples if teacher_size % each == 0), multiples[-1])
        step = self.multiple or lcm(suiting if suiting <= teacher_size else 1, self.usual_multiple(teacher_size))
        most = teacher_size // step
        sizes = {
            size if isinstance(size, int) else max(1, min(round(size * teacher_size / step), most)) * step
            for size in self.sizes
        }
        return tuple(sorted(size for size in sizes if size != teacher_size))

    def usual_multiple(self, teacher_size: int) -> int:
        """Return the multiple where neither the settings nor a runtime ask for one."""
        return 1


class ChannelSettings(KindSettings):
    """Candidates that keep some channels; sizes are rounded for the hardware unless `multiple` says otherwise."""

    multiple: Positive | None = Field(
        default=None,
        description=(
            "Fractions are rounded to a multiple of this number of channels. "
            "`null`: the largest power of two up to 64 that divides the teacher's size into at least 8 parts, and what "
            "`pruning.sizes_for` needs."
        ),
    )

    def usual_multiple(self, teacher_size: int) -> int:
        """Return the largest power of two up to 64 that divides `teacher_size` into at least 8 parts, or 1."""
        steps = (1, 2, 4, 8, 16, 32, 64)
        return max((step for step in steps if teacher_size % step == 0 and teacher_size // step >= 8), default=1)
