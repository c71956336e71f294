"""Stage `importance`: one sweep over the calibration text fills every hook that any requested pruning needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, ScoreKey, sweep_importance
from anyblock.candidates.library import half_sites
from anyblock.checkpoint.atomic import write_tensors_atomic
from anyblock.config.schema import RunConfig
from anyblock.contract.blocks import HALVES
from anyblock.contract.residual_pruning import HIDDEN_SIZE
from anyblock.errors import UsageError, nearest
from anyblock.plugins.blame import blaming
from anyblock.pruning.ordering import best_first
from anyblock.run.context import RunContext
from anyblock.run.model_source import Source
from anyblock.run.run_folder import RunFolder, file_digest

if TYPE_CHECKING:
    import torch

    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.residual_pruning import ResidualPruning

STAGE: Final = "importance"
_FILE = "scores.safetensors"
_LEARNED = "learned.safetensors"


def run_importance(
    context: RunContext, plans: Sequence[HookPlan], batches: Batches
) -> dict[tuple[int, str], torch.Tensor]:
    """Return `{(layer, pruning kind): unit order, most important first}` from the hook that selects for that kind.

    Raises:
        UsageError: a hook that does not fit the pruning kind.
    """
    asked = _source_plans(context)
    if not plans and not asked:
        return {}
    stage = context.run.stage(
        STAGE,
        context.inputs(
            batches=batches,
            reference=context.reference.checkpoint.fingerprint(),
            hooks=[[plan.kind, plan.name, plan.target, plan.options] for plan in plans],
            sources=[[str(plan.origin), plan.name, plan.kind, plan.target, plan.layers] for plan in asked],
        ),
    )
    if not stage.skipped:
        with stage.run() as folder:
            found = sweep_importance(
                context.reference.engine,
                [*plans, *asked],
                batches,
                partial=folder / ".layers",
                spool=context.spool(folder),
                progress=context.progress,
            )
            learned = {str(key): found.pop(key) for key in list(found) if key.kind in HALVES}
            write_tensors_atomic(folder / _FILE, {str(key): values for key, values in found.items()})
            write_tensors_atomic(folder / _LEARNED, learned)
    return read_orders(context.run, plans)


def read_orders(run: RunFolder, plans: Sequence[HookPlan]) -> dict[tuple[int, str], torch.Tensor]:
    """Return what `run_importance` does, from the finished stage."""
    if not plans:
        return {}
    selecting = {plan.kind: plan.name for plan in reversed(plans) if plan.kind != HIDDEN_SIZE}
    orders: dict[tuple[int, str], torch.Tensor] = {}
    for key, values in read_importance(run).items():
        if selecting.get(key.kind) == key.hook:
            # A stable sort of the negated scores: equal scores keep the lower index first, on every machine.
            orders[key.layer, key.kind] = (-values).argsort(stable=True)
    return orders


def read_importance(run: RunFolder) -> dict[ScoreKey, torch.Tensor]:
    """Read the scores of the finished stage, float32 [units] each."""
    from safetensors.torch import load_file

    return {ScoreKey.parse(name): values for name, values in load_file(run.result(STAGE, _FILE)).items()}


def _source_plans(context: RunContext) -> list[HookPlan]:
    """Return what the run's sources of candidates want to be collected."""
    model, origins = context.reference.source, context.family.origins("sources")
    plans = []
    for site in half_sites(context.family, model.text_config, model.block_configs, model.shapes):
        for name, source in context.sources.items():
            with blaming(origins[name], f"the candidate source {name!r}", source):
                if source.offers(site) and (watched := source.watches(site)):
                    module, hook = watched
                    plans.append(HookPlan(site.half, name, hook, None, module, {}, origins[name], [site.layer]))
    return plans


def learn(context: RunContext) -> None:
    """Give the run's sources of candidates what the sweep collected for them; it has to be finished."""
    from safetensors.torch import load_file

    if not (plans := _source_plans(context)):
        return
    path = context.run.result(STAGE, _LEARNED)
    found = {ScoreKey.parse(key): values for key, values in load_file(path).items()}
    for name in {plan.name for plan in plans}:
        mine = {
            (key.layer, half): found[key] for key in found for half in HALVES if (key.kind, key.hook) == (half, name)
        }
        context.sources[name].learn(mine, context.teacher.channels)
    context.learned = file_digest(path)


def channel_order(context: RunContext, plans: Sequence[HookPlan]) -> torch.Tensor:
    """Return the channels of the residual stream, most important first, int64 `[hidden]`; the sweep has to be finished.

    A channel's score is the sum over the layers of what the hook found there. Without a hook the order is the model's.
    """
    import torch

    hook = next((plan.name for plan in plans if plan.kind == HIDDEN_SIZE), None)
    if hook is None:
        return torch.arange(int(context.reference.source.text_config.hidden_size))
    found = read_importance(context.run).items()
    mine = [values.double() for key, values in found if (key.kind, key.hook) == (HIDDEN_SIZE, hook)]
    return best_first(sum(mine[1:], start=mine[0]))


def _default_hook(units: PruningMixIn | ResidualPruning, config: RunConfig) -> type[ImportanceHook]:
    """Return the hook that ranks these units unless the run names one."""
    hooks = units.supported_hooks()
    for_repair = [hook for hook in hooks if hook.for_repair and config.pruning.repair.method != "none"]
    return (*for_repair, *hooks)[0]


def hook_plans(config: RunConfig, source: Source) -> list[HookPlan]:
    """Return the hooks of every requested pruning kind; for each kind the selecting hook comes first.

    Raises:
        UsageError: there is no hook of that name.
    """
    hooks, origins = source.family.importance_hooks(), source.family.origins("hooks")
    mixins, stream = source.family.pruning_mixins(), source.family.residual_stream()
    there = {kind: own for kind, own in mixins.items() if any(own.applies_to(block) for block in source.block_configs)}
    plans: list[HookPlan] = []
    for kind, settings in config.pruning.kinds().items():
        units = stream if kind == HIDDEN_SIZE else there.get(kind)
        if units is None or settings.init != "importance":  # nothing is chosen
            continue
        default = _default_hook(units, config)
        selecting = settings.hook or default.__name__
        known = {**hooks, default.__name__: default}  # the units' own default need not be registered by name
        for name in dict.fromkeys((selecting, *settings.extra_hooks)):
            if name not in known:
                raise UsageError(
                    f"unknown importance hook {name!r}", expected=", ".join(sorted(known)), hint=nearest(name, known)
                )
            options = dict(settings.hook_options) if name == selecting else {}
            plans.append(HookPlan(kind, name, known[name], units, settings.target, options, origins.get(name)))
    return plans
