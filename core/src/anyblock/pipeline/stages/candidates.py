"""Stage `candidates`: what every layer may become, and what each alternative costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyblock.blocks import BlockConfig, block_configs_from_json
from anyblock.candidates.candidate import TEACHER, Candidate
from anyblock.candidates.library import list_candidates
from anyblock.candidates.views import CandidateWeights
from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.costs.model import Scenario, add_costs, fixed_costs, subblock_costs
from anyblock.costs.names import CandidateCosts
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import RunFolder, read_json

STAGE = "3-candidates"


@dataclass(frozen=True)
class CostedCandidates:
    """Every candidate with its costs.

    Attributes:
        blocks: the teacher's block configs.
        candidates: the teacher's own subblocks included.
        costs: by candidate key.
        fixed: what the parts outside the subblocks cost.
    """

    blocks: list[BlockConfig]
    candidates: list[Candidate]
    costs: dict[str, CandidateCosts]
    fixed: CandidateCosts

    @property
    def teacher(self) -> CandidateCosts:
        """What the teacher costs as a whole."""
        return add_costs([self.fixed, *(self.costs[c.key] for c in self.candidates if c.kind == TEACHER)])

    @property
    def to_score(self) -> list[Candidate]:
        """The candidates that differ from the teacher."""
        return [candidate for candidate in self.candidates if candidate.kind != TEACHER]


def run_candidates(context: RunContext) -> CostedCandidates:
    """List the candidates and count their costs from shapes; no weight is read.

    Raises:
        UsageError: a size that the family cannot have.
    """
    config = context.config
    scenario = scenario_of(context)
    stage = context.run.stage(
        STAGE,
        {
            "teacher": context.teacher.fingerprint(),
            "pruning": config.pruning.model_dump(mode="json", exclude={"repair"}),
            "scenario": [scenario.batch_size, scenario.length, scenario.cache_dtype],
            "adapter": f"{context.family.distribution} {context.family.version}",
        },
    )
    if not stage.skipped:
        found = _list(context)
        weights = CandidateWeights(context.teacher, context.family, context.text_config, {})
        rows = []
        for candidate in found:
            costs = subblock_costs(
                context.family,
                context.hf_config,
                candidate.block_config,
                candidate.layer,
                candidate.half,
                weights.shapes(candidate),
                scenario,
            )
            rows.append({"candidate": candidate.to_dict(), "costs": costs})
        shapes = {group: context.teacher.meta(group) for group in context.teacher.groups}
        fixed = fixed_costs(context.family, context.hf_config, shapes, len(context.teacher.block_configs), scenario)
        with stage.run() as folder:
            blocks = [block.to_dict() for block in context.teacher.block_configs]
            write_json_atomic(folder / "candidates.json", {"blocks": blocks, "candidates": rows, "fixed": fixed})
    return read_candidates(context.run)


def read_candidates(run: RunFolder) -> CostedCandidates:
    """Read the finished stage."""
    data: dict[str, Any] = read_json(run.result(STAGE, "candidates.json"))
    candidates = [Candidate.from_dict(row["candidate"]) for row in data["candidates"]]
    costs = {candidate.key: row["costs"] for candidate, row in zip(candidates, data["candidates"], strict=True)}
    return CostedCandidates(block_configs_from_json(data["blocks"]), candidates, costs, data["fixed"])


def scenario_of(context: RunContext) -> Scenario:
    """Return what memory is counted for: the search's batch and length, and the cache's dtype."""
    search = context.config.search
    cache_dtype = search.cache_dtype
    if cache_dtype == "auto":
        cache_dtype = str(context.hf_config.dtype or "float32").removeprefix("torch.")
    return Scenario(batch_size=search.batch, length=search.length, cache_dtype=cache_dtype)


def _list(context: RunContext) -> list[Candidate]:
    pruning = context.config.pruning
    mixins = context.family.pruning_mixins()
    blocks = context.teacher.block_configs
    sizes = {
        kind: settings.absolute_sizes
        for kind, settings in pruning.kinds().items()
        # A dense model has no experts and a sparse one perhaps no dense ffn: a default that does not apply is no error.
        if kind in mixins and any(mixins[kind].applies_to(block) for block in blocks)
    }
    removable = [half for half, settings in (("attention", pruning.attention), ("ffn", pruning.ffn)) if settings.no_op]
    supported = [half for half in removable if context.family.supports(f"{half}_no_op")]
    return list_candidates(context.family, context.text_config, blocks, sizes, supported)
