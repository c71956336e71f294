"""Which candidates a run considers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyblock.candidates.candidate import TEACHER, Candidate
from anyblock.contract.blocks import HALVES, BlockConfig, group_name
from anyblock.contract.candidate_source import CandidateSource, HalfSite, Offer
from anyblock.errors import UnsupportedModelError
from anyblock.plugins.blame import blaming, check_result

if TYPE_CHECKING:
    import torch

    from anyblock.family import ModelFamily
    from anyblock.plugins.status import Origin


def list_candidates(
    family: ModelFamily,
    config: Any,
    block_configs: Sequence[BlockConfig],
    sizes: Mapping[str, Callable[[int], Sequence[int]]],
    sources: Mapping[str, CandidateSource] | None = None,
    tensors: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
) -> list[Candidate]:
    """Return every candidate, the teacher's own subblocks first in each group.

    Args:
        family: whose mixins and no-ops are used.
        config: the language model's config.
        block_configs: the teacher's blocks.
        sizes: `{pruning kind: function}` that turns the teacher's number of units into the sizes to offer.
        sources: what else offers candidates, by name.
        tensors: `{group: the teacher's tensors}` that these may look at, on the meta device.

    Raises:
        UnsupportedModelError: the family has no such pruning kind.
        UsageError: a size that the family cannot have; the message lists the nearest legal ones.
        PluginError: a source raised, or offered something else than alternatives for the half; names its distribution.
    """
    mixins = family.pruning_mixins()
    for kind in sizes:
        if kind not in mixins:
            raise UnsupportedModelError(
                f"{family.model_type} has no pruning kind {kind!r}", expected=", ".join(sorted(mixins)) or "none"
            )
    largest = {
        kind: max((mixins[kind].size(block) for block in block_configs if mixins[kind].applies_to(block)), default=0)
        for kind in sizes
    }
    origins = family.origins("sources") if sources else {}
    found: list[Candidate] = []
    for site in half_sites(family, config, block_configs, tensors or {}):
        layer, half, block = site.layer, site.half, site.block_config
        found.append(Candidate(layer, half, TEACHER, 0, block))
        for kind, sizes_for in sizes.items():
            mixin = mixins[kind]
            if mixin.half != half or not mixin.applies_to(block):
                continue
            full = mixin.size(block)
            for size in sizes_for(full):
                if full <= size <= largest[kind]:
                    continue  # meant for the layers that have so many
                mixin.check_size(block, size, config)
                found.append(Candidate(layer, half, kind, size, mixin.resize(block, size, config)))
        for name, source in (sources or {}).items():
            found += _offered(origins[name], name, source, site)
    return found


def half_sites(
    family: ModelFamily,
    config: Any,
    block_configs: Sequence[BlockConfig],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
) -> Iterator[HalfSite]:
    """Yield every half that the teacher has, as sources see it; see `list_candidates`."""
    mixins, supports = family.pruning_mixins(), supported(family)
    for layer, block in enumerate(block_configs):
        for half in HALVES:
            if not block.half(half).no_op:
                own = tensors.get(group_name(layer, half), {})
                yield HalfSite(layer, half, block, config, own, mixins, supports)


def supported(family: ModelFamily) -> frozenset[str]:
    """Return the capabilities that a family declares."""
    return frozenset(name for name, capability in family.capabilities().items() if capability)


def _offered(origin: Origin, name: str, source: CandidateSource, site: HalfSite) -> list[Candidate]:
    what = f"the candidate source {name!r}"
    with blaming(origin, what, source):
        offers = list(source.offers(site))
    for offer in offers:
        check_result(origin, what, offer, Offer, "a sequence of anyblock.contract.candidate_source.Offer")
    return [Candidate(site.layer, site.half, name, offer.size, offer.block_config) for offer in offers]
