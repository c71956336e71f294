"""A source of candidates that looks at weights alone, and needs no calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from anyblock.contract.candidate_source import CandidateSource, HalfSite, Offer, SourceSettings
from anyblock.contract.kind_settings import Size
from anyblock.contract.settings import Section
from pydantic import Field

if TYPE_CHECKING:
    import torch


class MagnitudeSettings(SourceSettings):
    """Settings of the source `magnitude`."""

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = Field(
        default=(0.5,), description="Widths of the ffn to offer: channels (2048) or fractions (0.5)."
    )


class Magnitude(CandidateSource):
    """Dense ffns with the channels whose output weights have the largest Euclidean norm: the simplest baseline there is."""

    summary: ClassVar[str] = "narrower dense ffns, the channels with the largest output weights kept; no calibration"
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

    def tensors(self, site: HalfSite, offer: Offer) -> Mapping[str, torch.Tensor]:
        """See `CandidateSource.tensors`: the family's mixin knows where channels lie, so it does the selecting."""
        import torch

        mixin = site.mixins["ffn_intermediate"]
        axis = mixin.axes(site.layer, site.block_config, site.config)[0]  # what the channels feed into
        output = site.tensors[axis.name]
        order = torch.arange(mixin.size(site.block_config))
        if not output.is_meta:
            order = (-output.float().movedim(axis.dim, 0).flatten(1).norm(dim=1)).argsort(stable=True)
        ordered = mixin.sort(site.layer, site.tensors, site.block_config, order, site.config)
        return mixin.narrow(site.layer, ordered, site.block_config, offer.block_config, site.config)
