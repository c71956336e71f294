"""Stage `candidates`: what every layer may become, and what each alternative costs, from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final

from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.linear import LinearMaps, linear_sites
from anyblock.candidates.sources import PlannedTeacher
from anyblock.candidates.storage import BYTES, Storage
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.config.pruning import CORE_KINDS
from anyblock.config.schema import RunConfig
from anyblock.contract.blocks import HALVES, BlockConfig, block_configs_from_json, group_name
from anyblock.contract.candidate_source import CandidateSource
from anyblock.contract.residual_pruning import HIDDEN_SIZE
from anyblock.costs.cost_model import Scenario, fixed_costs, model_costs, subblock_costs
from anyblock.costs.registry import CandidateCosts
from anyblock.costs.weights import is_tied, non_block_tensors
from anyblock.errors import UnsupportedModelError, nearest
from anyblock.modeling.skeleton import load_hf_config
from anyblock.run.model_source import Source, run_sources, run_storage
from anyblock.run.run_folder import RunFolder, read_json

STAGE: Final = "candidates"
_FILE = "candidates.json"


@dataclass(frozen=True)
class CostedCandidates:
    """Every candidate with its costs.

    Attributes:
        blocks: the teacher's block configs.
        candidates: the teacher's own subblocks included.
        costs: by candidate key.
        fixed: what the parts outside the subblocks cost.
        reference: what the model costs as a whole as it was given; shares of it are what relative budgets mean.
    """

    blocks: list[BlockConfig]
    candidates: list[Candidate]
    costs: dict[str, CandidateCosts]
    fixed: CandidateCosts
    reference: CandidateCosts

    @property
    def to_score(self) -> list[Candidate]:
        """The candidates that differ from the teacher."""
        return [candidate for candidate in self.candidates if not candidate.unchanged]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        rows = [{"candidate": c.to_dict(), "costs": self.costs[c.key]} for c in self.candidates]
        blocks = [block.to_dict() for block in self.blocks]
        return {"blocks": blocks, "candidates": rows, "fixed": self.fixed, "reference": self.reference}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostedCandidates:
        """Read the JSON form."""
        candidates = [Candidate.from_dict(row["candidate"]) for row in data["candidates"]]
        costs = {candidate.key: row["costs"] for candidate, row in zip(candidates, data["candidates"], strict=True)}
        return cls(block_configs_from_json(data["blocks"]), candidates, costs, data["fixed"], data["reference"])


def plan_candidates(
    config: RunConfig, source: Source, reference: Source, *, linear: LinearMaps | None = None
) -> CostedCandidates:
    """List the candidates and count their costs from shapes.

    Args:
        config: the run's configuration.
        source: the model that candidates are made from.
        reference: the model as it was given; `source` itself unless that has a smaller hidden size.
        linear: the halves that linear maps may replace.

    Raises:
        UsageError: a size that the family cannot have.
        UnsupportedModelError: a kind of pruning that the run asks for and the model cannot have.
    """
    family, text_config = source.family, source.text_config
    scenario = scenario_of(config, source)
    sources = run_sources(config, family)
    candidates = _list(config, source, linear.sites if linear else {}, sources)
    storage = run_storage(config, source)
    if storage is not None:
        candidates = storage.offered(candidates, family)
    weights = CandidateWeights(PlannedTeacher(source.block_configs), family, text_config, {}, linear, sources=sources)
    costs: dict[str, CandidateCosts] = {}
    for candidate in candidates:
        shapes = weights.shapes(candidate, source.shapes[candidate.group])
        costs[candidate.key] = own = subblock_costs(
            family, source.config, candidate.block_config, candidate.layer, candidate.half, shapes, scenario
        )
        if storage is not None:
            own[BYTES] = (
                storage.nbytes(candidate.storage, shapes)
                if candidate.storage
                else storage.plain.removed(candidate.layer, candidate.half, source.text_config)
            )
    fixed = fixed_costs(family, source.config, source.shapes, len(source.block_configs), scenario)
    whole = model_costs(family, reference.config, reference.block_configs, reference.shapes, scenario).total
    if storage is not None:
        fixed[BYTES] = _outside_bytes(storage, source, storage.outside)
        plain, halves = storage.known[storage.outside].plain, product(range(len(reference.block_configs)), HALVES)
        parts = [reference.shapes.get(group_name(*place), {}) for place in halves]
        whole[BYTES] = _outside_bytes(storage, reference, plain) + sum(storage.nbytes(plain, own) for own in parts)
    return CostedCandidates(source.block_configs, candidates, costs, fixed, whole)


def _outside_bytes(storage: Storage, model: Source, name: str) -> int:
    """Return the bytes of a file that are not of halves."""
    config, layers = model.text_config, len(model.block_configs)
    tensors = non_block_tensors(model.shapes, tied=is_tied(model.config, config), num_layers=layers)
    return storage.plain.frame(model.path, config, layers) + storage.nbytes(name, tensors)


def linear_places(config: RunConfig, source: Source) -> LinearMaps:
    """Return the halves that linear maps may replace; none unless the run asks for them.

    Raises:
        UnsupportedModelError: it asks for them, and the adapter cannot have them.
    """
    pruning = config.pruning
    halves = [half for half, own in (("attention", pruning.attention), ("ffn", pruning.ffn)) if own.linear]
    if not halves:
        return LinearMaps()
    hf_config = load_hf_config(source.path)
    return LinearMaps(linear_sites(source.family, hf_config, source.block_configs, source.shapes, halves))


def keep_candidates(run: RunFolder, costed: CostedCandidates) -> None:
    """Write the candidates into the run, for later searches."""
    data = costed.to_dict()
    stage = run.stage(STAGE, data)
    if not stage.skipped:
        with stage.run() as folder:
            write_json_atomic(folder / _FILE, data)


def read_candidates(run: RunFolder) -> CostedCandidates:
    """Read the finished stage.

    Raises:
        InputError: it is not finished, or of a version of AnyBlock that counted other costs.
    """
    data = read_json(run.result(STAGE, _FILE))
    if "reference" not in data:
        raise run.unfinished("its candidates are those of an earlier version of AnyBlock")
    return CostedCandidates.from_dict(data)


def scenario_of(config: RunConfig, source: Source) -> Scenario:
    """Return what memory is counted for: the search's batch and length, and the cache's dtype."""
    cache_dtype: str = config.search.cache_dtype
    if cache_dtype == "auto":
        stated = getattr(source.config, "dtype", None) or getattr(source.text_config, "dtype", None)
        if stated is None:  # as transformers does: what the weights are stored in
            stated = next(tensor.dtype for tensor in source.shapes["embeddings"].values() if tensor.is_floating_point())
        cache_dtype = str(stated).removeprefix("torch.")
    settings = tuple(
        (name, config.section(f"costs.{name}", cost.settings)) for name, cost in source.family.named("costs").items()
    )
    return Scenario(config.search.batch, config.search.length, cache_dtype, settings=settings)


def _check_requested(config: RunConfig, source: Source) -> None:
    """Refuse a kind that the run asks for and the model cannot have.

    Raises:
        UnsupportedModelError: names the kind, and those that the model can have.
    """
    mixins, whole = source.family.pruning_mixins(), source.family.residual_stream()
    usable = [kind for kind, own in mixins.items() if any(own.applies_to(block) for block in source.block_configs)]
    usable += [HIDDEN_SIZE] * (whole is not None)
    for kind in sorted(config.pruning.requested_kinds() - set(usable)):
        key = CORE_KINDS.get(kind, kind)
        raise UnsupportedModelError(
            f"pruning.{key}: "
            + (
                f"no layer of this {source.model_type} has the units that {kind} removes"
                if kind in mixins
                else f"the adapter of {source.model_type} has no pruning kind {kind}"
            ),
            expected=f"one of {', '.join(sorted(usable))}" if usable else "no kind of pruning; halves can be removed",
            hint=nearest(kind, usable) or f"leave out pruning.{key}",
        )


def _list(
    config: RunConfig, source: Source, linear: Collection[tuple[int, str]], sources: Mapping[str, CandidateSource]
) -> list[Candidate]:
    pruning, family = config.pruning, source.family
    mixins = family.pruning_mixins()
    _check_requested(config, source)
    query_heads = getattr(source.text_config, "num_attention_heads", None)
    sizes = {
        kind: partial(settings.absolute_sizes, query_heads=query_heads)
        for kind, settings in pruning.kinds().items()
        # A sparse model has perhaps no dense ffn: a default that does not apply is not an error.
        # The hidden size is not a candidate of a subblock: it is cut before.
        if kind in mixins and any(mixins[kind].applies_to(block) for block in source.block_configs)
    }
    return list_candidates(family, source.text_config, source.block_configs, sizes, linear, sources, source.shapes)
