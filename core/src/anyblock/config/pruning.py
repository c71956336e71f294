"""The `pruning` section: which sizes and removals are candidates, and which hook ranks the units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from anyblock.contract.settings import Names, Positive, Section
from anyblock.errors import ConfigError

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


_LINEAR: Final = "Offer one linear map in its place, fitted to the calibration text by least squares."


class KindPruning(Section):
    """Candidates of one kind of pruning; the kind is the key under which this section stands."""

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(),
        description="Sizes to offer beside the teacher's own: units (2048), fractions (0.25), `0.25x` or `25%`. Empty: none.",
    )
    multiple: Positive | None = Field(
        default=1,
        description="Fractions are rounded to a multiple of so many units. `null`: chosen from the teacher's size.",
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
        """Whether any size is offered beside the teacher's own."""
        return bool(self.sizes)

    def absolute_sizes(self, teacher_size: int, *, query_heads: int | None = None) -> tuple[int, ...]:
        """Return the sizes in units, ascending, without duplicates and without the teacher's own.

        A fraction is rounded to the nearest multiple (at least one multiple); a number of units is taken as it stands.

        Args:
            teacher_size: the number of units of the unpruned subblock.
            query_heads: the attention's query heads, needed for `heads_per_group`.

        Raises:
            ConfigError: an entry of `heads_per_group` does not divide the query heads, or these are not given.
        """
        step = self.multiple or automatic_multiple(teacher_size)
        sizes = {
            size if isinstance(size, int) else max(step, round(size * teacher_size / step) * step)
            for size in self.sizes
        }
        return tuple(sorted(size for size in sizes if size != teacher_size))


class ChannelPruning(KindPruning):
    """Candidates that keep some channels; sizes are rounded for the hardware unless `multiple` says otherwise."""

    multiple: Positive | None = Field(
        default=None,
        description=(
            "Fractions are rounded to a multiple of this number of channels. "
            "`null`: the largest power of two up to 64 that divides the teacher's size into at least 8 parts."
        ),
    )


class HeadsPruning(KindPruning):
    """Candidates with fewer key-value heads."""

    heads_per_group: Annotated[tuple[Positive, ...], Field(strict=False)] = Field(
        default=(),
        description="Sizes given the other way round: so many query heads share one key-value head (8 of 32: 4 heads).",
    )

    def absolute_sizes(self, teacher_size: int, *, query_heads: int | None = None) -> tuple[int, ...]:
        """See `KindPruning.absolute_sizes`; the units are key-value heads."""
        sizes = set(super().absolute_sizes(teacher_size))
        for group in self.heads_per_group:
            if query_heads is None or query_heads % group:
                raise ConfigError(
                    f"heads_per_group has {group}, and the attention has {query_heads} query heads",
                    expected="a divisor of the number of query heads",
                    hint=f"the nearest possible value is {nearest_divisors(group, query_heads)}" if query_heads else "",
                )
            sizes.add(query_heads // group)
        return tuple(sorted(size for size in sizes if size != teacher_size))

    @property
    def offers(self) -> bool:
        """See `KindPruning.offers`."""
        return bool(self.sizes or self.heads_per_group)


class KVHeadsPruning(HeadsPruning):
    """Candidates with fewer key-value heads for all query heads."""

    init: Literal["importance", "truncate", "average", "first"] = Field(  # type: ignore[assignment]
        default="importance",
        description=(
            "`importance`: keep the heads that the hook ranks best. `truncate`: keep the first ones. `average`: every head "
            "is the mean of the neighbours that it stands for. `first`: it is the first of them."
        ),
    )


class FFNPruning(ChannelPruning):
    """Candidates for the dense ffn of a layer: narrower ones (kind `ffn_intermediate`) and its removal."""

    no_op: bool = Field(default=True, description="Offer to remove the whole ffn half.")
    linear: bool = Field(default=False, description=_LINEAR)
    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(0.25, 0.5, 0.75),
        description="Widths beside the teacher's own: channels (2048), fractions (0.25), `0.25x` or `25%`. Empty: none.",
    )
    hook: str | None = Field(
        default="IterativeChannelContributionHook", description="Importance hook that ranks the channels."
    )
    extra_hooks: Names = Field(
        default=("IndependentChannelContributionHook",),
        description="Further hooks to fill in the same sweep; their scores are kept for comparison only.",
    )


class AttentionPruning(Section):
    """The removal of a layer's attention; smaller attentions are the kinds `kv_heads` and `query_groups`."""

    no_op: bool = Field(default=True, description="Offer to remove the whole attention half.")
    linear: bool = Field(default=False, description=_LINEAR)


class HiddenSizePruning(ChannelPruning):
    """One hidden size for the whole child; it is cut first, and every candidate is made from the narrower model."""

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(),
        description="The child's hidden size, one: channels (2048), a fraction (0.75), `0.75x` or `75%`. Empty: the teacher's.",
    )

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if len(self.sizes) > 1:
            raise ValueError(
                f"hidden_size has {len(self.sizes)} sizes, and a run has one, since all layers share the hidden size; "
                "give one, and run once for each of the others"
            )
        return self


class RepairConfig(Section):
    """How the weights that remain are adapted to what was removed; no training is involved."""

    method: Literal["none", "least_squares"] = Field(
        default="least_squares",
        description="`none`: plain removal. `least_squares`: the map behind removed units is re-fitted to the text.",
    )


class PruningConfig(Section):
    """Which candidates every layer gets. A kind that a plugin adds goes under `other`."""

    ffn: FFNPruning = Field(default_factory=FFNPruning, description="The dense ffn: narrower ones and its removal.")
    attention: AttentionPruning = Field(default_factory=AttentionPruning, description="The removal of the attention.")
    kv_heads: KVHeadsPruning | None = Field(
        default=None, description="Fewer key-value heads, all query heads kept. `null`: not offered."
    )
    query_groups: HeadsPruning | None = Field(
        default=None, description="Fewer key-value heads together with their query heads. `null`: not offered."
    )
    experts_removal: KindPruning | None = Field(default=None, description="Fewer experts. `null`: not offered.")
    expert_intermediate: ChannelPruning | None = Field(
        default=None, description="Fewer channels in every expert. `null`: not offered."
    )
    mamba_heads: KindPruning | None = Field(
        default=None, description="Fewer heads of a Mamba, equally many of every group. `null`: not offered."
    )
    hidden_size: HiddenSizePruning | None = Field(
        default=None, description="Fewer channels in the residual stream of the whole model. `null`: all are kept."
    )
    other: dict[str, KindPruning] = Field(
        default_factory=dict, description="Kinds that an installed plugin adds: `{kind: settings}`."
    )
    repair: RepairConfig = Field(
        default_factory=RepairConfig, description="How the remaining weights are adapted to what was removed."
    )

    @model_validator(mode="after")
    def _no_core_kind_under_other(self) -> Self:
        own = {*CORE_KINDS, *type(self).model_fields}
        if taken := sorted(own & self.other.keys()):
            raise ValueError(
                f"other.{taken[0]} is a kind of core; write it as pruning.{CORE_KINDS.get(taken[0], taken[0])}"
            )
        return self

    def kinds(self) -> Mapping[str, KindPruning]:
        """Return `{kind: settings}` for every kind that offers sizes, core's kinds first."""
        found = {kind: getattr(self, field) for kind, field in CORE_KINDS.items()} | self.other
        return {kind: settings for kind, settings in found.items() if settings is not None and settings.offers}

    def requested_kinds(self) -> set[str]:
        """Return the kinds that offer sizes because the run says so; dense widths are offered by default."""
        by_default = type(self.ffn).model_fields["sizes"].default
        return {kind for kind in self.kinds() if kind != "ffn_intermediate" or self.ffn.sizes != by_default}

    def pooled_kinds(self) -> dict[str, str]:
        """Return `{kind: init}` of the kinds whose units are made from several of the teacher's."""
        return {kind: own.init for kind, own in self.kinds().items() if own.init not in ("importance", "truncate")}


CORE_KINDS = {
    "ffn_intermediate": "ffn",
    "kv_heads": "kv_heads",
    "query_groups": "query_groups",
    "experts_removal": "experts_removal",
    "expert_intermediate": "expert_intermediate",
    "mamba_heads": "mamba_heads",
    "hidden_size": "hidden_size",
}
"""`{kind of core: key below pruning}`."""


def nearest_divisors(value: int, whole: int) -> str:
    """Return the divisors of `whole` next to `value`, for a message: `2 or 4`."""
    divisors = [number for number in range(1, whole + 1) if whole % number == 0]
    below = max((number for number in divisors if number < value), default=None)
    above = min((number for number in divisors if number > value), default=None)
    return " or ".join(str(number) for number in (below, above) if number is not None)


def automatic_multiple(teacher_size: int) -> int:
    """Return the largest power of two up to 64 that divides `teacher_size` into at least 8 parts, or 1."""
    return max(
        (step for step in (1, 2, 4, 8, 16, 32, 64) if teacher_size % step == 0 and teacher_size // step >= 8), default=1
    )
