"""The names by which the reference knows hooks, mixins and layer descriptors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from anyblock.config.registry import NameRegistry, registry_for
from anyblock.errors import ConfigError
from anyblock_puzzletron_config.aliases import is_ignored_reference

HOOK = "IterativeChannelContributionHook"
MIXIN = "FFNIntermediatePruningMixIn"


@pytest.mark.parametrize(
    "name",
    [
        f"utils.activation_hooks.hooks.{HOOK}",
        f"modelopt.torch.nas.plugins.megatron_hooks.base_hooks.{HOOK}",
        f"modelopt.torch.nas.plugins.megatron_hooks.{HOOK}",
        f"modelopt.torch.prune.importance_hooks.{HOOK}",
        f"modelopt.torch.prune.importance_hooks.base_hooks.{HOOK}",
        f"modelopt.torch._compress.activation_scoring.activation_hooks.hooks.{HOOK}",
        f"modelopt.torch.puzzletron.utils.activation_hooks.hooks.{HOOK}",
    ],
)
def test_a_hook_is_found_by_every_name_it_has(registry: NameRegistry, name: str) -> None:
    assert registry.hook(name) == HOOK
    assert registry.any(name) == HOOK


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("NemotronHRemoveExpertsIndependentHook", "MoERemoveExpertsHook"),
        ("Qwen3VLRemoveExpertsIndependentHook", "MoERemoveExpertsHook"),
        ("RankedChoiceVotingHookNemotronH", "RankedChoiceVotingHook"),
    ],
)
def test_hooks_of_one_family_are_served_by_the_general_one(registry: NameRegistry, name: str, hook: str) -> None:
    assert registry.hook(f"modelopt.torch.nas.plugins.megatron_hooks.base_hooks.{name}") == hook
    own = NameRegistry({**registry.hooks, name: type(name, (), {})}, registry.mixins, dialects=registry.dialects)
    assert own.hook(name) == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (MIXIN, "ffn_intermediate"),
        ("ffn_intermediate", "ffn_intermediate"),
        (f"pruning.ffn_intermediate_pruning_mixin.{MIXIN}", "ffn_intermediate"),
        (f"modelopt.torch.puzzletron.pruning.ffn_intermediate_pruning_mixin.{MIXIN}", "ffn_intermediate"),
        (f"modelopt.torch._compress.pruning.ffn_intermediate_pruning_mixin.{MIXIN}", "ffn_intermediate"),
        (f"anyblock.pruning.{MIXIN}", "ffn_intermediate"),
        ("pruning.kv_heads_pruning_mixin.KVHeadsPruningMixIn", "kv_heads"),
        ("QueryGroupsPruningMixIn", "query_groups"),
    ],
)
def test_a_mixin_is_found_by_every_name_it_has(registry: NameRegistry, name: str, kind: str) -> None:
    assert registry.mixin(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("models.llama.llama_model_descriptor.LlamaFFNIntermediateLayerDescriptor", "ffn_intermediate"),
        (
            "modelopt.torch.puzzletron.anymodel.models.llama.llama_model_descriptor.LlamaKVHeadsLayerDescriptor",
            "kv_heads",
        ),
        ("LlamaFFNIntermediateLayerDescriptor", "ffn_intermediate"),
        ("anyblock.pruning.ffn.FFNIntermediateLayerDescriptor", "ffn_intermediate"),
    ],
)
def test_a_layer_descriptor_is_found_by_every_name_it_has(registry: NameRegistry, name: str, kind: str) -> None:
    assert registry.layer_descriptor(name) == kind


def test_another_familys_layer_descriptor_is_refused(registry: NameRegistry) -> None:
    name = "models.qwen3.qwen3_model_descriptor.Qwen3FFNIntermediateLayerDescriptor"
    with pytest.raises(ConfigError, match="describes the layers of qwen3, and the family is llama"):
        registry.layer_descriptor(name)
    assert (
        NameRegistry(registry.hooks, registry.mixins, dialects=registry.dialects).layer_descriptor(name)
        == "ffn_intermediate"
    )
    mistral = NameRegistry(registry.hooks, registry.mixins, "mistral", dialects=registry.dialects)
    path = "models.mistral_small.mistral_small_model_descriptor.MistralFFNIntermediateLayerDescriptor"
    assert mistral.layer_descriptor(path) == "ffn_intermediate"


def test_the_references_data_loaders_are_known_and_ignored(registry: NameRegistry) -> None:
    name = "modelopt.torch.puzzletron.utils.data.dataloaders.load_from_disk_fn"
    assert is_ignored_reference(name)
    assert registry.any(name) == name
    for other in ("load_from_disk_fn", "os.load_from_disk_fn", "modelopt.torch.puzzletron.utils.data.dataloaders.os"):
        assert not is_ignored_reference(other)


def test_a_descriptor_means_the_family_that_the_reference_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `qwen3_vl` is for models with experts; the family of that name here is for those without."""
    asked: list[str] = []

    def found(model_type: str) -> Any:
        asked.append(model_type)
        return SimpleNamespace(importance_hooks=dict, pruning_mixins=dict, named=lambda kind: {}, model_type=model_type)

    monkeypatch.setattr("anyblock.family.get_family", found)
    for named in ({"descriptor": "qwen3_vl"}, {"descriptor": "llama"}):
        registry_for(named)
    assert asked == ["qwen3_vl_moe", "llama"]
