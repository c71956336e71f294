"""Names in a configuration: what is registered is found, nothing else is, and nothing is ever imported."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anyblock.config.registry import NameRegistry, is_ignored_reference, registry_for
from anyblock.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

HOOK = "IterativeChannelContributionHook"
MIXIN = "FFNIntermediatePruningMixIn"


@pytest.mark.parametrize(
    "name",
    [
        HOOK,
        f"anyblock.importance.{HOOK}",
        f"anyblock.importance.iterative.{HOOK}",
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


@pytest.mark.parametrize("name", sorted(NameRegistry.for_family(None).hooks))
def test_every_hook_of_core_is_found(registry: NameRegistry, name: str) -> None:
    cls = registry.hooks[name]
    assert registry.hook(name) == registry.hook(f"{cls.__module__}.{cls.__qualname__}") == name


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
    own = NameRegistry({**registry.hooks, name: type(name, (), {})}, registry.mixins)
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
    assert NameRegistry(registry.hooks, registry.mixins).layer_descriptor(name) == "ffn_intermediate"
    mistral = NameRegistry(registry.hooks, registry.mixins, "mistral")
    path = "models.mistral_small.mistral_small_model_descriptor.MistralFFNIntermediateLayerDescriptor"
    assert mistral.layer_descriptor(path) == "ffn_intermediate"


def test_what_a_plugin_registers_is_found() -> None:
    plugin = type("PluginHook", (), {"__module__": "a_plugin.hooks"})
    mixin = type("PluginMixIn", (), {"__module__": "a_plugin.mixins", "kind": "state_size"})
    registry = NameRegistry({"PluginHook": plugin}, {"state_size": mixin})
    assert registry.hook("a_plugin.hooks.PluginHook") == registry.hook("a_plugin.PluginHook") == "PluginHook"
    assert registry.mixin("a_plugin.mixins.PluginMixIn") == "state_size"
    for name in ("plugin.PluginHook", "a_plug.PluginHook", "a_plugin.other.PluginHook", "a_plugin.hooks.x.PluginHook"):
        with pytest.raises(ConfigError):
            registry.hook(name)


FORBIDDEN = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "subprocess.Popen",
    "subprocess.run",
    "pickle.loads",
    "shutil.rmtree",
    "importlib.import_module",
    "torch.load",
    "torch.nn.Linear",
    "timeit.timeit",
    "anyblock.x.os.system",
    "anyblock.importance.os.system",
    "anyblock.config.registry.re.compile",
    "anyblock.errors.ConfigError",
    f"evil.{HOOK}",
    f"os.{HOOK}",
    f"anyblockevil.importance.{HOOK}",
    f"anyblock.importanc.{HOOK}",
    f"anyblock.importance.iterative.x.{HOOK}",
    f"modelopt.{HOOK}",
    f"modelopt.torch.prune.{HOOK}",
    f"utils.activation_hooks.hooks.os.{HOOK}",
    f"utils.activation_hooks.hooks.{HOOK}.__init__",
    f"utils.activation_hooks.hooks.{HOOK}.__globals__",
    "utils.activation_hooks.hooks.os",
    "utils.activation_hooks.hooks.__builtins__",
    f"pruning.evil_pruning_mixin.{MIXIN}",
    f"pruning.ffn_intermediate_pruning_mixin.os.{MIXIN}",
    "models.llama.os.LlamaFFNIntermediateLayerDescriptor",
    "models.llama.qwen3_model_descriptor.LlamaFFNIntermediateLayerDescriptor",
    "models.../etc/passwd.LlamaFFNIntermediateLayerDescriptor",
    f"{HOOK}()",
    f" {HOOK}",
    f"{HOOK} ",
    f"{HOOK}\n",
    f"{HOOK}.",
    f".{HOOK}",
    "__import__('os').system",
    "",
    ".",
    "..",
    "ImportanceHook",
    "HookContext",
]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_anything_else_is_refused(registry: NameRegistry, name: str) -> None:
    for look_up in (registry.hook, registry.mixin, registry.layer_descriptor, registry.any):
        with pytest.raises(ConfigError, match="is no registered"):
            look_up(name)


def test_nothing_is_imported(registry: NameRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anyblock_evil_module.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for look_up in (registry.hook, registry.mixin, registry.layer_descriptor, registry.any):
        for name in (f"anyblock_evil_module.{HOOK}", "anyblock_evil_module.boom", "anyblock_evil_module"):
            with pytest.raises(ConfigError):
                look_up(name)
    assert "anyblock_evil_module" not in sys.modules
    assert list(tmp_path.glob("*.ran")) == []


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(
        st.sampled_from(["os", "system", "anyblock", "importance", "iterative", "eval", HOOK, MIXIN]),
        min_size=2,
        max_size=5,
    )
)
def test_only_paths_of_the_class_lead_to_it(parts: list[str]) -> None:
    registry = NameRegistry.for_family(None)
    name = ".".join(parts)
    legal = {f"anyblock.{HOOK}", f"anyblock.importance.{HOOK}", f"anyblock.importance.iterative.{HOOK}"}
    if name in legal:
        assert registry.hook(name) == HOOK
    else:
        with pytest.raises(ConfigError):
            registry.hook(name)


def test_an_error_says_what_there_is(registry: NameRegistry) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.hook("utils.activation_hooks.hooks.IterativeChanelContributionHook")
    assert HOOK in caught.value.expected
    assert f"'{HOOK}'" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        NameRegistry().hook("os.system")
    assert "none does" in caught.value.expected
    assert "nothing is imported" in caught.value.hint


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
        return SimpleNamespace(importance_hooks=dict, pruning_mixins=dict, model_type=model_type)

    monkeypatch.setattr("anyblock.family.get_family", found)
    for named in ({"descriptor": "qwen3_vl"}, {"descriptor": "llama"}):
        registry_for(named)
    assert asked == ["qwen3_vl_moe", "llama"]
