"""What all stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyblock
from anyblock.candidates.candidate_weights import CandidateWeights, Orders
from anyblock.candidates.linear import LinearMaps
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.schema import RunConfig
from anyblock.costs.registry import LATENCY
from anyblock.modeling.device import compute_dtype, resolve_devices, stored_dtype
from anyblock.pipeline.model_source import Source
from anyblock.pipeline.run_folder import RunFolder, digest
from anyblock.progress import Progress

if TYPE_CHECKING:
    import torch

    from anyblock.calibration.batches import Batches
    from anyblock.contract.scoring_metric import ScoringMetric
    from anyblock.family import ModelFamily
    from anyblock.modeling.layerwise import LayerwiseModel
    from anyblock.modeling.memory import MemoryPlan
    from anyblock.modeling.spool import Spool


@dataclass
class RunContext:
    """A run in progress.

    Attributes:
        config: what was asked for.
        run: where stages are kept.
        source: the model as it was given.
        teacher: the teacher's subblock checkpoint; with a smaller hidden size, the narrowed one.
        family: its adapter.
        progress: where stages report.
        before: the run with the model as it was given, where the hidden size was cut; None otherwise.
        stream: the channels of the residual stream that are kept, by their places in the model as it was given.
        linear: the halves that linear maps can replace; after the calibration with the maps.
    """

    config: RunConfig
    run: RunFolder
    source: Source
    teacher: SubblockCheckpoint
    family: ModelFamily
    progress: Progress
    before: RunContext | None = None
    stream: tuple[int, ...] | None = None
    linear: LinearMaps = field(default_factory=LinearMaps)

    @property
    def original(self) -> RunContext:
        """The run with the model as it was given, which children are compared with."""
        return self.before or self

    @cached_property
    def device(self) -> torch.device:
        """Where models run; the first of several devices."""
        return resolve_devices(self.config.device)[0]

    @cached_property
    def dtype(self) -> torch.dtype:
        """What models compute in."""
        return compute_dtype(self.config.dtype, stored_dtype(self.hf_config), self.device)

    @cached_property
    def metric(self) -> ScoringMetric:
        """What candidates are scored by.

        Raises:
            UsageError: no plugin gives a metric of that name.
        """
        settings = self.config.scoring
        chosen: type[ScoringMetric] = self.family.one("metrics", settings.metric)
        return chosen(self.config.section(f"scoring.{settings.metric}", chosen.settings))

    @cached_property
    def engine(self) -> LayerwiseModel:
        """The teacher, ready to run layer by layer; built when a stage first needs it."""
        return self.engine_of(self.teacher)

    def engine_of(self, checkpoint: SubblockCheckpoint) -> LayerwiseModel:
        """Return the teacher or a child, ready to run layer by layer, with as many layers in memory as there is room for."""
        from anyblock.modeling.layerwise import LayerwiseModel

        plan = self.memory
        return LayerwiseModel(
            checkpoint,
            self.family,
            device=self.device,
            dtype=self.dtype,
            max_resident=plan.max_resident,
            room=plan.room,
        )

    @cached_property
    def memory(self) -> MemoryPlan:
        """How much may be held at once: what the run's `memory` settings say, or what there is room for at the start."""
        from anyblock.modeling.memory import plan_memory, weight_sizes
        from anyblock.modeling.process_memory import return_freed_memory
        from anyblock.modeling.skeleton import model_class

        settings = self.config.memory
        model_class(self.hf_config)  # so that what the process takes already includes transformers
        layers, outside = weight_sizes(self.teacher, self.dtype)
        device, *others = resolve_devices(self.config.device)
        if any(bound.cost == LATENCY for bound in self.config.search.bounds()):
            others = []  # times are of one device
        plan = plan_memory(
            layers,
            outside,
            device=device,
            others=others,
            spread=self.config.device != "auto",
            limit=settings.limit_bytes,
            max_resident=settings.max_resident,
        )
        if plan.max_resident is not None:
            return_freed_memory()
            self.progress.note(f"weights of at most {plan.max_resident} of {plan.layers} layers are held at once")
        elif plan.room is not None:
            self.progress.note(f"layers are spread over {', '.join(map(str, plan.room))}")
        return plan

    def spool(self, stage: Path) -> Spool:
        """Return where a stage that works in this folder keeps hidden states; what a killed run left there is removed."""
        spool = self.memory.spool(stage / ".spool")
        spool.close()
        return spool

    @cached_property
    def hf_config(self) -> Any:
        """The model's Hugging Face configuration."""
        from anyblock.modeling.skeleton import load_hf_config

        return load_hf_config(self.teacher.path, trust_remote_code=self.config.trust_remote_code)

    @cached_property
    def text_config(self) -> Any:
        """The language model's part of the configuration."""
        return self.family.language_model_config(self.hf_config)

    def weights(self, orders: Orders) -> CandidateWeights:
        """Return the candidates' weights, as views of the teacher whose units are sorted by `orders`."""
        return CandidateWeights(self.teacher, self.family, self.text_config, orders, self.linear, self.pooled)

    @property
    def pooled(self) -> dict[str, str]:
        """See `CandidateWeights`."""
        return self.config.pruning.pooled_kinds()

    def choices_key(self, orders: Orders) -> dict[str, str]:
        """Return what identifies the content of all candidates' weights, beside the teacher."""
        found = {f"{layer}|{kind}": digest(order.tolist()) for (layer, kind), order in sorted(orders.items())}
        return found | ({"linear": self.linear.key} if self.linear.key else {}) | self.pooled

    def inputs(self, *, orders: Orders | None = None, batches: Batches | None = None, **more: Any) -> dict[str, Any]:
        """Return what the result of a stage that computes with the teacher depends on.

        Args:
            orders: how units are sorted, where candidates are made.
            batches: the text, where one is run.
            more: whatever else it depends on.
        """
        found: dict[str, Any] = {"teacher": self.teacher.fingerprint(), "execution": self.execution}
        if orders is not None:
            found["orders"] = self.choices_key(orders)
        if batches is not None:
            found |= {"tokens": batches.key, "batch_size": batches.batch_size}
        return found | more

    @property
    def execution(self) -> dict[str, str]:
        """What decides about the numbers besides the inputs: part of the fingerprint of every stage that computes."""
        import torch
        import transformers

        return {
            "device": str(self.device),
            "dtype": str(self.dtype),
            "anyblock": anyblock.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "adapter": f"{self.family.distribution} {self.family.version}",
        }
