"""Stage `importance`: one sweep over the calibration text fills every hook that any requested pruning needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.errors import UsageError, nearest
from anyblock.pipeline.context import RunContext

if TYPE_CHECKING:
    import torch


def run_importance(context: RunContext, batches: Batches) -> dict[tuple[int, str], torch.Tensor]:
    """Return `{(layer, pruning kind): unit order, most important first}` from the hook that selects for that kind.

    Raises:
        UsageError: an unknown hook, or one that does not fit the pruning kind.
    """
    from safetensors.torch import load_file, save_file

    plans = hook_plans(context)
    stage = context.run.stage(
        "2-importance",
        {
            "teacher": context.teacher.fingerprint(),
            "tokens": batches.key,
            "batch_size": batches.batch_size,
            "hooks": [[plan.kind, plan.name, plan.target, plan.options] for plan in plans],
            "execution": context.execution,
        },
    )
    if not stage.skipped and plans:
        with stage.run() as folder:
            scores = sweep_importance(
                context.engine, plans, batches, partial=folder / ".layers", progress=context.progress
            )
            save_file(scores, folder / "scores.safetensors")
    if not plans:
        return {}
    scores = load_file(context.run.result("2-importance", "scores.safetensors"))
    selecting = {plan.kind: plan.name for plan in reversed(plans)}
    orders: dict[tuple[int, str], Any] = {}
    for name, values in scores.items():
        layer, kind, hook = name.split("|")
        if selecting[kind] == hook:
            # A stable sort of the negated scores: equal scores keep the lower index first, on every machine.
            orders[int(layer), kind] = (-values).argsort(stable=True)
    return orders


def hook_plans(context: RunContext) -> list[HookPlan]:
    """Return the hooks of every requested pruning kind; for each kind the selecting hook comes first."""
    hooks = context.family.importance_hooks()
    mixins = context.family.pruning_mixins()
    plans: list[HookPlan] = []
    for kind, settings in context.config.pruning.kinds().items():
        mixin = mixins.get(kind)
        if mixin is None or not any(mixin.applies_to(block) for block in context.teacher.block_configs):
            continue
        selecting = settings.hook or mixin.supported_hooks()[0].__name__
        for name in dict.fromkeys((selecting, *settings.extra_hooks)):
            if name not in hooks:
                raise UsageError(
                    f"unknown importance hook {name!r}", expected=", ".join(sorted(hooks)), hint=nearest(name, hooks)
                )
            options = dict(settings.hook_options) if name == selecting else {}
            plans.append(HookPlan(kind, name, hooks[name], mixin, settings.target, options))
    return plans
