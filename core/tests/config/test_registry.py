"""Names in a configuration: what is registered is found, nothing else is, and nothing is ever imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from anyblock.config.registry import NameRegistry
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
    ("name", "kind"),
    [
        (MIXIN, "ffn_intermediate"),
        ("ffn_intermediate", "ffn_intermediate"),
        (f"anyblock.pruning.{MIXIN}", "ffn_intermediate"),
        ("QueryGroupsPruningMixIn", "query_groups"),
    ],
)
def test_a_mixin_is_found_by_every_name_it_has(registry: NameRegistry, name: str, kind: str) -> None:
    assert registry.mixin(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("anyblock.pruning.ffn.FFNIntermediateLayerDescriptor", "ffn_intermediate"),
    ],
)
def test_a_layer_descriptor_is_found_by_every_name_it_has(registry: NameRegistry, name: str, kind: str) -> None:
    assert registry.layer_descriptor(name) == kind


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
        with pytest.raises(ConfigError, match="is not a registered"):
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
