"""A source of candidates that looks at weights alone, or at the calibration text as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from anyblock.contract.candidate_source import CandidateSource, HalfSite, Offer, SourceSettings
from anyblock.contract.kind_settings import Size
from anyblock.contract.settings import Section
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from anyblock.contract.importance_hook import ImportanceHook


class MagnitudeSettings(SourceSettings):
    """Settings of the source `magnitude`."""

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(0.5,), description="Widths of the ffn to offer: channels (2048) or fractions (0.5)."
    )
    activations: bool = Field(
        default=False, description="Weigh the weights by how large the inputs are on the calibration text."
    )


class Magnitude(CandidateSource):
    """Dense ffns with the channels whose output weights have the largest Euclidean norm: the simplest baseline there is."""

    summary: ClassVar[str] = "narrower dense ffns, the channels with the largest output weights kept"
    settings: ClassVar[type[Section]] = MagnitudeSettings

    def offers(self, site: HalfSite) -> Sequence[Offer]:
        """See `CandidateSource.offers`."""
        mixin = site.mixins.get("ffn_intermediate")
        if site.half != "ffn" or mixin is None or not mixin.applies_to(site.block_config):
            return []
        full = mixin.size(site.block_config)
        widths = {size if isinstance(size, int) else round(size * full) for size in self.settings_given.sizes}
        return [
            Offer(width, mixin.resize(site.block_config, width, site.config))
            for width in sorted(widths)
            if width < full
        ]

    def watches(self, site: HalfSite) -> tuple[str, type[ImportanceHook]] | None:
        """See `CandidateSource.watches`: any importance hook serves; what it finds is in `self.learned` afterwards."""
        from anyblock_example_extension.wanda import WandaChannelContributionHook

        mixin = site.mixins["ffn_intermediate"]
        return (
            (mixin.hook_target(site.layer), WandaChannelContributionHook) if self.settings_given.activations else None
        )

    def tensors(self, site: HalfSite, offer: Offer) -> Mapping[str, torch.Tensor]:
        """See `CandidateSource.tensors`: the family's mixin knows where channels lie, so it does the selecting."""
        import torch

        mixin = site.mixins["ffn_intermediate"]
        axis = mixin.axes(site.layer, site.block_config, site.config)[0]  # what the channels feed into
        output = site.tensors[axis.name]
        order = torch.arange(mixin.size(site.block_config))
        if not output.is_meta:
            sizes = output.float().movedim(axis.dim, 0).flatten(1).norm(dim=1)
            order = (-self.learned.get((site.layer, site.half), sizes)).argsort(stable=True)
        ordered = mixin.sort(site.layer, site.tensors, site.block_config, order, site.config)
        return mixin.narrow(site.layer, ordered, site.block_config, offer.block_config, site.config)
