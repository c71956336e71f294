"""Which importance hooks a run fills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from anyblock.config import RunConfig
from anyblock.config.extension_sections import with_sections
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.kind_settings import KindSettings
from anyblock.family import get_family
from anyblock.importance import IndependentChannelContributionHook, L2NormHook
from anyblock.pipeline.model_source import read_source
from anyblock.pipeline.stages.importance import hook_plans
from anyblock.plugins import PluginRegistry
from anyblock.pruning.ffn import FFNIntermediatePruningMixIn


class OwnHook(IndependentChannelContributionHook):
    """Registered under no name."""


class OwnKindPruningMixIn(FFNIntermediatePruningMixIn):
    """A kind whose default hook is known to it alone."""

    kind = "own_kind"

    def supported_hooks(self) -> tuple[type[Any], ...]:
        return (OwnHook, L2NormHook)


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
