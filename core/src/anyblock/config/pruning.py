"""The `pruning` section: which sizes and removals are candidates, and which hook ranks the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from anyblock.config.effort import EFFORTS
from anyblock.contract.kind_settings import ChannelSettings, KindSettings, Size
from anyblock.contract.settings import Names, Positive, Section
from anyblock.errors import ConfigError

_LINEAR: Final = "Offer one linear map in its place, fitted to the calibration text by least squares."


class HeadsPruning(KindSettings):
    """Candidates with fewer key-value heads."""

    heads_per_group: Annotated[tuple[Positive, ...], Field(strict=False)] = Field(
        default=(),
        description="Sizes given the other way round: so many query heads share one key-value head (8 of 32: 4 heads).",
    )

    def absolute_sizes(
        self, teacher_size: int, *, query_heads: int | None = None, multiples: Sequence[int] = (1,)
    ) -> tuple[int, ...]:
        """See `KindSettings.absolute_sizes`; the units are key-value heads."""
        sizes = set(super().absolute_sizes(teacher_size, multiples=multiples))
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
        """See `KindSettings.offers`."""
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


class FFNPruning(ChannelSettings):
    """Candidates for the dense ffn of a layer: narrower ones (kind `ffn_intermediate`) and its removal."""

    no_op: bool = Field(default=True, description="Offer to remove the whole ffn half.")
    linear: bool = Field(default=False, description=_LINEAR)
    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(0.25, 0.5, 0.75),
        description="Widths in addition to the teacher's own: channels (2048), fractions (0.25), `0.25x` or `25%`. Empty: none.",
    )
    hook: str | None = Field(
        default=None,
        description=(
            "Importance hook that ranks the channels. `null`: `OptimalBrainSurgeonHook` where the child is repaired, and "
            "`IterativeChannelContributionHook` where it is not."
        ),
    )
    extra_hooks: Names = Field(
        default=("IndependentChannelContributionHook",),
        description="Further hooks to fill in the same sweep; their scores are kept for comparison only.",
    )


class AttentionPruning(Section):
    """The removal of a layer's attention; smaller attentions are the kinds `kv_heads` and `query_groups`."""

    no_op: bool = Field(default=True, description="Offer to remove the whole attention half.")
    linear: bool = Field(default=False, description=_LINEAR)


class HiddenSizePruning(ChannelSettings):
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
        description="`none`: plain removal. `least_squares`: the map after removed units is re-fitted to the text.",
    )
    target: Literal["half", "stream"] = Field(
        default="half",
        description=(
            "What a map is fitted to. `half`: to what the teacher's half gives on the same inputs. `stream`: to the teacher's "
            "residual stream after the half, so that it makes up for the layers before it as well."
        ),
    )


class PruningConfig(Section):
    """Which candidates every layer gets. A kind or a source that a plugin adds stands here under its own name."""

    sizes_for: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "What will run the child, by the name of an export format or of a program that reads one, such as `llama.cpp` or "
            "`vllm`: fractions become sizes that suit it, in every kind whose `multiple` is not set."
        ),
    )
    tensor_parallel: Positive = Field(
        default=1,
        description="On how many devices each layer will be divided: fractions become widths and head counts that allow it.",
    )
    ffn: FFNPruning = Field(default_factory=FFNPruning, description="The dense ffn: narrower ones and its removal.")
    attention: AttentionPruning = Field(default_factory=AttentionPruning, description="The removal of the attention.")
    kv_heads: KVHeadsPruning | None = Field(
        default=None, description="Fewer key-value heads, all query heads kept. `null`: not offered."
    )
    query_groups: HeadsPruning | None = Field(
        default=None, description="Fewer key-value heads together with their query heads. `null`: not offered."
    )
    experts_removal: KindSettings | None = Field(default=None, description="Fewer experts. `null`: not offered.")
    expert_intermediate: ChannelSettings | None = Field(
        default=None, description="Fewer channels in every expert. `null`: not offered."
    )
    mamba_heads: KindSettings | None = Field(
        default=None, description="Fewer heads of a Mamba, equally many of every group. `null`: not offered."
    )
    hidden_size: HiddenSizePruning | None = Field(
        default=None, description="Fewer channels in the residual stream of the whole model. `null`: all are kept."
    )
    repair: RepairConfig = Field(
        default_factory=RepairConfig, description="How the remaining weights are adapted to what was removed."
    )

    def kinds(self) -> Mapping[str, KindSettings]:
        """Return `{kind: settings}` for every kind that offers sizes, core's kinds first."""
        found = {kind: getattr(self, field) for kind, field in CORE_KINDS.items()}
        for name in type(self).model_fields:  # a plugin's kind has a field of its own, see `extension_sections`
            if name not in CORE_KINDS.values() and isinstance(own := getattr(self, name), KindSettings):
                found[name] = own
        return {kind: settings for kind, settings in found.items() if settings is not None and settings.offers}

    def requested_kinds(self) -> set[str]:
        """Return the kinds that offer sizes because the run says so; dense widths are offered by default."""
        by_default = [
            type(self.ffn).model_fields["sizes"].default,
            tuple(EFFORTS["thorough"]["pruning"]["ffn"]["sizes"]),
        ]
        return {kind for kind in self.kinds() if kind != "ffn_intermediate" or self.ffn.sizes not in by_default}

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
