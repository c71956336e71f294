"""The candidate source `no_op`: nothing in place of a half."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.blocks import HALVES
from anyblock.contract.candidate_source import CandidateSource, HalfSite, Offer
from anyblock.contract.settings import Section

if TYPE_CHECKING:
    import torch


class HalfSource(CandidateSource):
    """Offers one thing in place of a half, where a switch of `pruning.attention` and `pruning.ffn` says so."""

    switch: ClassVar[str]
    settings: ClassVar[type[Section]] = Section

    def __init__(self, settings: Section | None = None, halves: Collection[str] = HALVES) -> None:
        super().__init__(settings)
        self.halves = halves

    @classmethod
    def of_run(cls, settings: Section, pruning: Any) -> CandidateSource:
        """See `CandidateSource.of_run`: always there, for the halves whose switch is on."""
        return cls(settings, [half for half in HALVES if getattr(getattr(pruning, half), cls.switch)])


class NoOp(HalfSource):
    """Removes a half; `pruning.attention.no_op` and `pruning.ffn.no_op` say which."""

    summary: ClassVar[str] = "removes the half: its output is the residual path"
    switch: ClassVar[str] = "no_op"

    def offers(self, site: HalfSite) -> Sequence[Offer]:
        """See `CandidateSource.offers`."""
        if site.half not in self.halves or f"{site.half}_no_op" not in site.supports:
            return []
        return [Offer(0, site.block_config.with_half(site.half, no_op=True))]

    def tensors(self, site: HalfSite, offer: Offer) -> Mapping[str, torch.Tensor]:
        """See `CandidateSource.tensors`."""
        return {}
