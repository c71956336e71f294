"""What all stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.sources import Orders
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.schema import RunConfig
from anyblock.contract.cost import MeasuredCost
from anyblock.costs.registry import known_costs
from anyblock.execution.local import LocalExecutor
from anyblock.modeling.device import compute_dtype, resolve_devices, stored_dtype
from anyblock.plugins.collecting import CORE
from anyblock.progress import Progress
from anyblock.run.model_source import Source, run_sources, run_storage
from anyblock.run.run_folder import RunFolder, digest
from anyblock.version import VERSION

if TYPE_CHECKING:
    import torch

    from anyblock.calibration.batches import Batches
    from anyblock.candidates.storage import Storage
    from anyblock.contract.candidate_source import CandidateSource
    from anyblock.contract.executor import Executor
    from anyblock.contract.scoring_metric import ScoringMetric
    from anyblock.family import ModelFamily
    from anyblock.modeling.layerwise import LayerwiseModel
    from anyblock.modeling.spool import Spool
    from anyblock.run.memory import MemoryPlan


@dataclass
class RunModel:
    """One of a run's models, on disk and ready to run.

    Attributes:
        config: what was asked for.
        source: its configuration, block configs and shapes.
        checkpoint: its subblock checkpoint.
        progress: where it reports.
        channels: which channels of the reference's residual stream it keeps, in its order; None where it keeps all.
    """

    config: RunConfig
    source: Source
    checkpoint: SubblockCheckpoint
    progress: Progress
    channels: tuple[int, ...] | None = None

    @cached_property
    def device(self) -> torch.device:
        """Where it runs; the first of several devices."""
        return resolve_devices(self.config.device)[0]

    @cached_property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return compute_dtype(self.config.dtype, stored_dtype(self.hf_config), self.device)

    @cached_property
    def engine(self) -> LayerwiseModel:
        """It, ready to run layer by layer; built when a stage first needs it."""
        return self.engine_of(self.checkpoint)

    def engine_of(self, checkpoint: SubblockCheckpoint) -> LayerwiseModel:
        """Return this model or a child of it, ready to run with as many layers in memory as there is room for."""
        from anyblock.modeling.layerwise import LayerwiseModel

        plan = self.memory
        return LayerwiseModel(
            checkpoint,
            self.source.family,
            device=self.device,
            dtype=self.dtype,
            max_resident=plan.max_resident,
            room=plan.room,
        )

    @cached_property
    def memory(self) -> MemoryPlan:
        """How much may be held at once: what the run's `memory` settings say, or what there is room for at the start."""
        from anyblock.modeling.process_memory import return_freed_memory
        from anyblock.modeling.skeleton import model_class
        from anyblock.run.memory import plan_memory, weight_sizes

        settings = self.config.memory
        model_class(self.hf_config)  # so that what the process takes already includes transformers
        layers, outside = weight_sizes(self.checkpoint, self.dtype)
        device, *others = resolve_devices(self.config.device)
        if any(issubclass(known_costs()[bound.cost], MeasuredCost) for bound in self.config.search.bounds()):
            others = []  # what is measured is of one device
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

    @cached_property
    def hf_config(self) -> Any:
        """Its Hugging Face configuration."""
        from anyblock.modeling.skeleton import load_hf_config

        return load_hf_config(self.checkpoint.path)

    @cached_property
    def text_config(self) -> Any:
        """The language model's part of the configuration."""
        return self.source.family.language_model_config(self.hf_config)


@dataclass
class RunContext:
    """A run in progress.

    Attributes:
        config: what was asked for.
        run: where stages are kept.
        progress: where stages report.
        teacher: the model that candidates are made from.
        reference: the model as it was given, which children are compared with; the teacher itself unless the teacher is
            narrower.
        executor: where tasks are computed.
        learned: identifies what the calibration collected for sources of candidates; empty before, and where they ask for nothing.
    """

    config: RunConfig
    run: RunFolder
    progress: Progress
    teacher: RunModel
    reference: RunModel
    executor: Executor = field(default_factory=LocalExecutor)
    learned: str = ""

    @property
    def family(self) -> ModelFamily:
        """The adapter of both models."""
        return self.reference.source.family

    @cached_property
    def metric(self) -> ScoringMetric:
        """What candidates are scored by.

        Raises:
            UsageError: no plugin gives a metric of that name.
        """
        settings = self.config.scoring
        chosen: type[ScoringMetric] = self.family.one("metrics", settings.metric)
        return chosen(self.config.section(f"scoring.{settings.metric}", chosen.settings))

    def spool(self, stage: Path) -> Spool:
        """Return where a stage that works in this folder keeps hidden states; what a killed run left there is removed."""
        spool = self.teacher.memory.spool(stage / ".spool")
        spool.close()
        return spool

    def weights(self, orders: Orders) -> CandidateWeights:
        """Return the candidates' weights, as views of the teacher whose units are sorted by `orders`."""
        teacher = self.teacher
        return CandidateWeights(
            teacher.checkpoint,
            self.family,
            teacher.text_config,
            orders,
            self.pooled,
            self.sources,
            self.storage,
        )

    @cached_property
    def sources(self) -> dict[str, CandidateSource]:
        """The sources of candidates that the run uses, by name."""
        return run_sources(self.config, self.reference.source)

    @cached_property
    def storage(self) -> Storage | None:
        """The storage types that the run searches; None where it searches none."""
        return run_storage(self.config, self.teacher.source)

    @property
    def pooled(self) -> dict[str, str]:
        """See `CandidateWeights`."""
        return self.config.pruning.pooled_kinds()

    def choices_key(self, orders: Orders) -> dict[str, str]:
        """Return what identifies the content of all candidates' weights, apart from the teacher."""
        found = {f"{layer}|{kind}": digest(order.tolist()) for (layer, kind), order in sorted(orders.items())}
        origins = self.family.origins("sources")
        added = {
            f"source {name}": f"{origins[name]} {digest(source.settings_given.to_dict())}"
            for name, source in self.sources.items()
            if origins[name].distribution != CORE
        }
        return (
            found
            | ({"learned": self.learned} if self.learned else {})
            | self.pooled
            | added
            | dict(self.storage.key if self.storage else {})
        )

    def inputs(self, *, orders: Orders | None = None, batches: Batches | None = None, **more: Any) -> dict[str, Any]:
        """Return what the result of a stage that computes with the teacher depends on.

        Args:
            orders: how units are sorted, where candidates are made.
            batches: the text, where one is run.
            more: whatever else it depends on.
        """
        found: dict[str, Any] = {"teacher": self.teacher.checkpoint.fingerprint(), "execution": self.execution}
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
            "device": str(self.teacher.device),
            "dtype": str(self.teacher.dtype),
            "anyblock": VERSION,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "adapter": f"{self.family.distribution} {self.family.version}",
        }
