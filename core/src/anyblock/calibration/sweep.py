"""One pass over the calibration text that fills every importance hook."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from anyblock.calibration.batches import Batches
from anyblock.checkpoint.atomic import write_tensors_atomic
from anyblock.contract.importance_hook import HookContext, ImportanceHook
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.errors import ExecutionError, PluginError, UsageError
from anyblock.modeling.spool import IN_MEMORY, Spool
from anyblock.plugins.blame import blaming, check_result
from anyblock.plugins.loading import package_of
from anyblock.plugins.status import Origin
from anyblock.progress import SILENT, Progress

if TYPE_CHECKING:
    from anyblock.contract.residual_pruning import ResidualPruning
    from anyblock.modeling.layerwise import LayerwiseModel


@dataclass(frozen=True)
class ScoreKey:
    """Names one result of the sweep.

    Attributes:
        layer: the layer's index.
        kind: the pruning kind; of what a candidate source asked for, the half.
        hook: the hook's name; the source's.
    """

    layer: int
    kind: str
    hook: str

    def __str__(self) -> str:
        return f"{self.layer}|{self.kind}|{self.hook}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` returns."""
        layer, kind, hook = text.split("|")
        return cls(int(layer), kind, hook)


@dataclass(frozen=True)
class HookPlan:
    """One hook to fill in layers that its pruning kind applies to.

    Attributes:
        kind: see `ScoreKey`.
        name: the hook's registered name; the source's.
        hook: its class.
        units: the kind's mixin, or the residual stream's: it knows the module that the hook watches. None for a source.
        target: a module inside the layer to watch instead; None takes that one.
        options: passed to the hook's constructor.
        origin: the distribution that gives the hook; None takes its package.
        layers: the layers it is filled in; None for all.
    """

    kind: str
    name: str
    hook: type[ImportanceHook]
    units: PruningMixIn | ResidualPruning | None
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    layers: Collection[int] | None = None

    def blaming(self) -> AbstractContextManager[None]:
        """See `anyblock.plugins.blame.blaming`: within this scope the hook is at work, and the teacher."""
        return blaming(self.giver, f"the importance hook {self.name!r}", self.hook, inside=True)

    @property
    def giver(self) -> Origin:
        """The distribution that gives the hook."""
        return self.origin or Origin(package_of(self.hook), "")


@torch.no_grad()
def sweep_importance(
    engine: LayerwiseModel,
    plans: Sequence[HookPlan],
    batches: Batches,
    *,
    partial: Path | None = None,
    spool: Spool = IN_MEMORY,
    progress: Progress = SILENT,
) -> dict[ScoreKey, torch.Tensor]:
    """Run the teacher layer by layer with all hooks attached to the layer that runs.

    Args:
        engine: the teacher.
        plans: which hooks to fill.
        batches: the calibration text, in the order in which hooks see it.
        partial: folder in which each finished layer's scores are kept; a later call continues after them.
        spool: where hidden states are kept.
        progress: where to report; the unit is tokens through one layer.

    Returns:
        The scores of every hook in every layer, float32 [units], higher is more important; a source's in its own shape.

    Raises:
        UsageError: a hook has no such target module, or refuses its options; or there are too few batches for it.
        CheckpointError: a weight is not finite; names the tensor.
        ExecutionError: a layer's output, or an importance, is not finite; names the layer.
    """
    from safetensors.torch import load_file

    scores: dict[ScoreKey, torch.Tensor] = {}
    prepared, hidden = engine.prepare_all(batches, spool)
    with progress.task("Calibrating", total=batches.tokens * engine.num_layers, unit="layer tokens") as advance:
        for index in range(engine.num_layers):
            kept = None if partial is None else partial / f"{index}.safetensors"
            hooks: dict[ScoreKey, tuple[HookPlan, ImportanceHook]] = {}
            if kept is None or not kept.is_file():
                hooks = _attach(engine, index, plans, len(batches))
            with ExitStack() as stack:
                for plan, hook in hooks.values():
                    stack.enter_context(plan.blaming())
                    stack.callback(hook.attach().remove)
                for position, batch in enumerate(prepared):
                    hidden[position] = engine.run(index, hidden[position], batch)
                    advance(batch.input_ids.numel())
            found = {key: _scores(engine, index, *hook) for key, hook in hooks.items()}
            if kept is not None and kept.is_file():
                found = {ScoreKey.parse(name): values for name, values in load_file(kept).items()}
            elif kept is not None and found:
                kept.parent.mkdir(exist_ok=True)
                write_tensors_atomic(kept, {str(key): values for key, values in found.items()})
            scores.update(found)
    return scores


def _scores(engine: LayerwiseModel, index: int, plan: HookPlan, hook: ImportanceHook) -> torch.Tensor:
    with plan.blaming():
        scores = hook.scores()
    block = engine.block_configs[index]
    units = plan.units.size(block) if isinstance(plan.units, PruningMixIn) else int(engine.config.hidden_size)
    check_result(plan.giver, f"the importance hook {plan.name!r}", scores, torch.Tensor, f"one score per unit, {units}")
    if plan.units is not None and scores.shape[-1:] != (units,):
        raise PluginError(
            f"the importance hook {plan.name!r} of {plan.giver} gives scores of shape {list(scores.shape)} in layer {index}",
            expected=f"one per unit of {plan.kind}, of which the layer has {units}",
        )
    if not scores.isfinite().all():
        raise ExecutionError(
            f"layer {index}: {int((~scores.isfinite()).sum())} of {scores.numel()} scores of {plan.name} ({plan.kind}) "
            "are not finite",
            expected="finite scores, from finite activations inside the layer",
            hint="try dtype=bfloat16 or dtype=float32, whose numbers reach further",
        )
    return scores.contiguous()


def _attach(
    engine: LayerwiseModel, index: int, plans: Sequence[HookPlan], num_batches: int
) -> dict[ScoreKey, tuple[HookPlan, ImportanceHook]]:
    layer = engine.use(index)
    block = engine.block_configs[index]
    context = HookContext(engine.config, block, index, num_batches)
    attached: dict[ScoreKey, tuple[HookPlan, ImportanceHook]] = {}
    for plan in plans:
        if isinstance(plan.units, PruningMixIn) and not plan.units.applies_to(block):
            continue
        if plan.layers is not None and index not in plan.layers:
            continue
        target = plan.target or (plan.units.hook_target(index, plan.hook) if plan.units else "")
        try:
            module = layer.get_submodule(target)
        except AttributeError as error:
            raise UsageError(
                f"layer {index} has no module {target!r} for {plan.name}",
                expected=", ".join(name for name, _ in layer.named_modules() if name),
            ) from error
        try:
            with plan.blaming():
                hook = plan.hook(module, context, **plan.options)
        except TypeError as error:
            raise UsageError(f"{plan.name} refuses its options {plan.options}: {error}") from error
        attached[ScoreKey(index, plan.kind, plan.name)] = plan, hook
    return attached
