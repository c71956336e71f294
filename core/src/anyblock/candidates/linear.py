"""The candidate source `linear`: one linear map in place of a half, fitted to what the half does on the calibration text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from anyblock.candidates.no_op import HalfSource
from anyblock.contract.blocks import Half
from anyblock.contract.candidate_source import HalfSite, LinearFit, Offer
from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.errors import UsageError
from anyblock.importance.statistics import HELD_OUT_EVERY, LinearFitStatistic
from anyblock.pruning.least_squares import fit_linear


class LinearMapHook(LinearFitStatistic, ImportanceHook):
    """Fits one matrix to what a module does.

    Args:
        module: maps hidden states to hidden states.
        context: see `HookContext`.
        held_out_every: see `GramStatistic`; None: every fourth batch, of two or three the last.

    Raises:
        UsageError: there are too few batches.
    """

    def __init__(self, module: nn.Module, context: HookContext, held_out_every: int | None = None) -> None:
        if context.num_batches < 2:
            raise UsageError(
                f"{context.num_batches} calibration batch is too few to fit linear maps with",
                expected="at least two batches: one to fit on, one to judge by",
                hint="give more text, lower data.batch_size, or leave out pruning.attention.linear and pruning.ffn.linear",
            )
        super().__init__(module, context, held_out_every or min(HELD_OUT_EVERY, context.num_batches))

    def scores(self) -> torch.Tensor:
        """Return the map, float32 `[hidden, hidden]`."""
        return fit_linear(self.fit, self.held_out).weight.float().contiguous()


class Linear(HalfSource):
    """Puts a linear map in place of a half; `pruning.attention.linear` and `pruning.ffn.linear` say which."""

    summary: ClassVar[str] = "replaces the half by one linear map, fitted to the calibration text"
    switch: ClassVar[str] = "linear"
    refits: ClassVar[bool] = True

    def offers(self, site: HalfSite) -> Sequence[Offer]:
        """See `CandidateSource.offers`: one map, unless the half is gone already."""
        if site.half not in self.halves or site.block_config.half(site.half).removed:
            return []
        return [Offer(0, site.block_config.with_half(site.half, replace_with_linear=True))]

    def watches(self, site: HalfSite) -> tuple[str, type[ImportanceHook]]:
        """See `CandidateSource.watches`: the module that the map replaces."""
        return self.stand_in(site.layer, site.half).module, LinearMapHook

    def learn(self, found: Mapping[tuple[int, Half], torch.Tensor], channels: Sequence[int] | None) -> None:
        """See `CandidateSource.learn`: maps are narrowed as all other weights are."""
        if channels is not None:
            index = torch.tensor(channels, dtype=torch.int64)
            found = {place: weight[index][:, index].contiguous() for place, weight in found.items()}
        super().learn(found, channels)

    def tensors(self, site: HalfSite, offer: Offer) -> Mapping[str, torch.Tensor]:
        """See `CandidateSource.tensors`."""
        device = next(iter(site.tensors.values())).device
        if self.learned and device.type != "meta":
            weight = self.learned[site.layer, site.half]
        else:  # a map takes equally long whatever its values are
            weight = torch.eye(int(site.config.hidden_size), device=device)
        return self.stand_in(site.layer, site.half).tensors(site.tensors, weight)

    def refitted(
        self, site: HalfSite, offer: Offer, hook: ImportanceHook
    ) -> tuple[Mapping[str, torch.Tensor], LinearFit]:
        """See `CandidateSource.refitted`: the map of the teacher's inputs is where the fit starts."""
        assert isinstance(hook, LinearMapHook)
        fitted = fit_linear(hook.fit, hook.held_out, start=self.learned[site.layer, site.half])
        return self.stand_in(site.layer, site.half).tensors(site.tensors, fitted.weight), fitted
