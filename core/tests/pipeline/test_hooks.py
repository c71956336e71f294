"""Which importance hooks a run fills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.calibration.batches import Batches
from anyblock.calibration.sweep import HookPlan, sweep_importance
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.config.extension_sections import with_sections
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.kind_settings import KindSettings
from anyblock.errors import PluginError, UsageError
from anyblock.family import get_family
from anyblock.importance import IndependentChannelContributionHook, L2NormHook
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.plugins import PluginRegistry
from anyblock.plugins.status import Origin
from anyblock.pruning.ffn import FFNIntermediatePruningMixIn
from anyblock.run.model_source import read_source
from anyblock.stages.importance import hook_plans


class OwnHook(IndependentChannelContributionHook):
    """Registered under no name."""


class OwnKindPruningMixIn(FFNIntermediatePruningMixIn):
    """A kind whose default hook is known to it alone."""

    kind = "own_kind"

    def supported_hooks(self) -> tuple[type[Any], ...]:
        return (OwnHook, L2NormHook)


class Raising(OwnHook):
    """Fails on its first batch, or in its constructor."""

    def __init__(self, module: Any, context: Any, early: bool = False) -> None:
        super().__init__(module, context)
        if early:
            raise TypeError("too early")

    def observe(self, args: Any, kwargs: Any, output: Any) -> None:
        raise LookupError("no such channel")


class Short(OwnHook):
    """Gives a score too few."""

    def scores(self) -> torch.Tensor:
        return super().scores()[1:]


class Listing(OwnHook):
    """Gives no tensor."""

    def scores(self) -> Any:
        return super().scores().tolist()


class Extension:
    @hookimpl
    def pruning_mixins(self) -> dict[str, Any]:
        mixin = get_family("llama").pruning_mixins()["ffn_intermediate"]
        return {"own_kind": OwnKindPruningMixIn(mixin.layer_descriptor)}


def test_a_mixins_default_hook_need_not_be_registered(llama_dir: Path) -> None:
    registry = PluginRegistry.from_plugins({"llama": get_family("llama").descriptor}, {"own": Extension})
    source = replace(read_source(llama_dir), family=get_family("llama", registry=registry))
    schema = with_sections(RunConfig, {"pruning.own_kind": KindSettings})
    for asked, extra, wanted in ((None, ["L2NormHook"], [OwnHook, L2NormHook]), ("L2NormHook", [], [L2NormHook])):
        pruning = {"own_kind": {"sizes": [0.5], "hook": asked, "extra_hooks": extra}}
        config = schema.model_validate({"model": str(llama_dir), "output": "child", "pruning": pruning})
        plans = [plan for plan in hook_plans(config, source) if plan.kind == "own_kind"]
        assert [plan.hook for plan in plans] == wanted


@pytest.mark.parametrize(
    ("hook", "options", "words"),
    [
        (Raising, {}, r"'own' of anyblock-own 2\.0 failed: LookupError: no such channel \(.*test_hooks\.py:\d+\)"),
        (Raising, {"early": True}, r"'own' of anyblock-own 2\.0 failed: TypeError: too early \(.*test_hooks\.py:\d+\)"),
        (Short, {}, r"'own' of anyblock-own 2\.0 gives scores of shape \[47\] in layer 0"),
        (Listing, {}, r"'own' of anyblock-own 2\.0 returned a list"),
    ],
)
def test_a_plugins_hook_that_fails_is_named_with_the_place(
    teacher_dir: Path, hook: type[Any], options: dict[str, Any], words: str
) -> None:
    family = get_family("llama")
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), family)
    mixin = family.pruning_mixins()["ffn_intermediate"]
    plan = HookPlan(mixin.kind, "own", hook, mixin, options=options, origin=Origin("anyblock-own", "2.0"))
    batches = Batches(torch.arange(16).reshape(2, 8), 1)
    with pytest.raises(PluginError, match=words):
        sweep_importance(engine, [plan], batches)
    assert not any(module._forward_hooks for module in engine.use(0).modules())


def test_options_that_a_hook_does_not_have_are_the_users(teacher_dir: Path) -> None:
    family = get_family("llama")
    engine = LayerwiseModel(SubblockCheckpoint.open(teacher_dir), family)
    mixin = family.pruning_mixins()["ffn_intermediate"]
    plan = HookPlan(mixin.kind, "own", Raising, mixin, options={"late": True}, origin=Origin("anyblock-own", "2.0"))
    with pytest.raises(UsageError, match="own refuses its options"):
        sweep_importance(engine, [plan], Batches(torch.arange(16).reshape(2, 8), 1))
