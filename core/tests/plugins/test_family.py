"""The typed handle: defaults, results that are refused, errors that name the plugin, and what the family can do."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from anyblock.builtin import Builtins
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.cache_spec import CacheSpec
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.contract.hookspecs import FamilySpec, hookimpl
from anyblock.contract.kinds import KINDS
from anyblock.errors import ConfigError, PluginError, UnsupportedModelError, UsageError
from anyblock.family import ModelFamily, get_family
from anyblock.importance import HOOKS
from anyblock.plugins import PluginLoadError, PluginRegistry
from anyblock.plugins.contract import SPECS
from anyblock.pruning.residual import RMSNormStream
from torch import nn

BLOCK = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=8))
CONFIG = SimpleNamespace(num_hidden_layers=2)

# How to call each hook of the contract with harmless arguments.
CALLS = {
    "layer_name_predicates": {"num_layers": 2, "config": CONFIG},
    "create_block_configs": {"config": CONFIG},
    "block_config_to_layer_overrides": {"block_config": BLOCK},
    "convert_weight_name": {"name": "a.weight"},
    "dequantize": {"names": ["a.weight", "b.weight"], "config": CONFIG},
    "dequantize_tensor": {"name": "a", "sources": {}, "config": CONFIG},
    "language_model_config": {"config": CONFIG},
    "model_classes": {},
    "decoder_layer_cls": {},
    "input_embedding_name": {},
    "output_embedding_name": {},
    "final_norm_name": {},
    "layer_block_name": {"index": 1},
    "init_rotary_embedding": {"model": nn.Identity(), "device": torch.device("cpu"), "dtype": torch.float32},
    "attn_no_op_post_init": {"decoder_layer": nn.Identity()},
    "mlp_no_op_post_init": {"decoder_layer": nn.Identity()},
    "cache_spec": {"config": CONFIG, "block_config": BLOCK, "layer_index": 0},
    "requires_trust_remote_code": {},
    "uses_autocast": {},
    "pruning_mixins": {},
    "residual_stream": {},
    "importance_hooks": {},
    "export_formats": {},
    "infer_family": {"model_type": "odd", "model": None},
    "standard_config": {"config": {"model_type": "odd"}},
    "capabilities": {},
    "conformance_config": {},
}
# Where a family that does not implement a hook still has an answer.
DEFAULTS = {
    "convert_weight_name": "a.weight",
    "dequantize": {},
    "language_model_config": CONFIG,
    "requires_trust_remote_code": False,
    "uses_autocast": True,
    "model_classes": {},
    "pruning_mixins": {},
    "residual_stream": None,
    "importance_hooks": dict(sorted(HOOKS.items())),
    "export_formats": Builtins().export_formats(),
    "infer_family": None,
    "standard_config": {"model_type": "odd"},
    "capabilities": {name: Capability(Support.UNKNOWN) for name in CAPABILITIES},
}


def returning(hook: str, result: object) -> ModelFamily:
    """Return a family whose only hook gives this result."""

    def implementation(self):
        return result

    return ModelFamily.from_descriptor(type("Fixed", (), {hook: hookimpl(implementation)}), model_type="fixed")


def raising(hook: str, error: BaseException) -> ModelFamily:
    def implementation(self):
        raise error

    return ModelFamily.from_descriptor(type("Raising", (), {hook: hookimpl(implementation)}), model_type="raising")


def call(family: ModelFamily, hook: str) -> object:
    return getattr(family, hook)(**CALLS[hook])


class Minimal:
    """Implements one hook, so that every other one is missing."""

    @hookimpl
    def capabilities(self):
        return {}


def test_every_hook_of_the_contract_has_a_method_with_the_same_arguments():
    import inspect

    assert set(CALLS) | {kind.hook for kind in KINDS.values()} == set(SPECS)
    for name in CALLS:
        spec = SPECS[name]
        assert tuple(inspect.signature(getattr(ModelFamily, name)).parameters)[1:] == spec.arguments
        assert getattr(ModelFamily, name).__doc__.startswith(("See `FamilySpec", "Return"))
    assert {name for name, spec in SPECS.items() if spec.collecting} == {kind.hook for kind in KINDS.values()}


@pytest.mark.parametrize("hook", sorted(CALLS))
def test_a_hook_that_the_family_lacks_has_a_default_or_says_so(hook):
    family = ModelFamily.from_descriptor(Minimal, model_type="minimal")
    if hook in DEFAULTS:
        assert call(family, hook) == DEFAULTS[hook]
    else:
        with pytest.raises(UnsupportedModelError, match=rf"'minimal'.*does not implement {hook}"):
            call(family, hook)
    assert family.implements(hook) == (hook == "capabilities" or hook in vars(Builtins))


GOOD = {
    "layer_name_predicates": {"embeddings": re.compile("a"), "block_0_attention": re.compile("b")},
    "create_block_configs": [BLOCK, BLOCK],
    "block_config_to_layer_overrides": {"intermediate_size": 8},
    "convert_weight_name": "b.weight",
    "language_model_config": SimpleNamespace(num_hidden_layers=9),
    "input_embedding_name": "model.embed_tokens",
    "layer_block_name": "transformer.h.1",
    "init_rotary_embedding": True,
    "requires_trust_remote_code": True,
    "uses_autocast": False,
    "cache_spec": CacheSpec(),
    "conformance_config": object(),
    "dequantize_tensor": torch.zeros(2),
    "residual_stream": RMSNormStream(),
}


@pytest.mark.parametrize("hook", sorted(GOOD))
def test_a_right_result_comes_back_as_it_is(hook):
    assert (
        call(returning(hook, GOOD[hook]), hook) is GOOD[hook] or call(returning(hook, GOOD[hook]), hook) == GOOD[hook]
    )


def test_results_are_normalised():
    assert returning("decoder_layer_cls", nn.Identity).decoder_layer_cls() == (nn.Identity,)
    assert returning("decoder_layer_cls", (nn.Identity, nn.ReLU)).decoder_layer_cls() == (nn.Identity, nn.ReLU)
    assert returning("convert_weight_name", None).convert_weight_name("a") == "a"
    plan = returning("dequantize", {"a.weight": ["a.weight", "b.weight"]}).dequantize(["a.weight", "b.weight"], None)
    assert plan == {"a.weight": ("a.weight", "b.weight")}
    declared = returning("capabilities", {"convert": Capability(Support.FULL)}).capabilities()
    assert list(declared) == list(CAPABILITIES)
    assert declared["search"].support is Support.UNKNOWN


BAD = [
    ("layer_name_predicates", [re.compile("a")], "returned a list"),
    ("layer_name_predicates", {"embeddings": "a.*"}, "returned a str for the group 'embeddings'"),
    ("layer_name_predicates", {"embeddings": re.compile(b"a")}, "for the group 'embeddings'"),
    ("layer_name_predicates", {"../escape": re.compile("a")}, "'../escape'"),
    ("layer_name_predicates", {3: re.compile("a")}, "group name 3"),
    ("create_block_configs", (BLOCK, BLOCK), "returned a tuple"),
    ("create_block_configs", [BLOCK, {}], "returned a dict for layer 1"),
    ("create_block_configs", [BLOCK], "returned 1 blocks"),
    ("create_block_configs", None, "returned None"),
    ("block_config_to_layer_overrides", [("a", 1)], "returned a list"),
    ("block_config_to_layer_overrides", {"a b": 1}, "'a b'"),
    ("convert_weight_name", 3, "returned a int"),
    ("dequantize", ["a.weight"], "returned a list"),
    ("dequantize", {"a.weight": "a.weight"}, "gave 'a.weight' as the sources"),
    ("dequantize", {"a.weight": []}, "gave [] as the sources"),
    ("dequantize", {"a.weight": ["a.weigth"]}, "did you mean 'a.weight'"),
    ("dequantize_tensor", [1.0], "returned a list"),
    ("decoder_layer_cls", nn.Identity(), "Identity()"),
    ("decoder_layer_cls", (nn.Identity, int), "<class 'int'>"),
    ("decoder_layer_cls", (), "empty tuple"),
    ("input_embedding_name", "", "''"),
    ("output_embedding_name", "lm_head.", "'lm_head.'"),
    ("final_norm_name", None, "None"),
    ("layer_block_name", 3, "3"),
    ("init_rotary_embedding", None, "`return True`"),
    ("attn_no_op_post_init", False, "`return True`"),
    ("mlp_no_op_post_init", 1, "`return True`"),
    ("cache_spec", {}, "returned a dict"),
    ("requires_trust_remote_code", "no", "returned a str"),
    ("uses_autocast", 1, "returned a int"),
    ("pruning_mixins", [], "returned a list"),
    ("pruning_mixins", {"kv_heads": object()}, "'kv_heads'"),
    ("pruning_mixins", {"": object()}, "''"),
    ("residual_stream", {"hidden_size": RMSNormStream()}, "returned a dict"),
    ("importance_hooks", {"New": object()}, "'New'"),
    ("importance_hooks", {"New": dict}, "<class 'dict'>"),
    ("capabilities", {"convrt": Capability(Support.FULL)}, "did you mean 'convert'"),
    ("capabilities", {"convert": True}, "returned a bool for 'convert'"),
    ("capabilities", {"convert": Capability(Support.PARTIAL)}, "without a note"),
    ("conformance_config", None, "returned None"),
]


@pytest.mark.parametrize(("hook", "result", "words"), BAD)
def test_a_wrong_result_is_refused_and_names_the_plugin_and_the_hook(hook, result, words):
    family = returning(hook, result)
    with pytest.raises(PluginError) as caught:
        call(family, hook)
    for word in ("Fixed", f"hook {hook}", words, "expected:"):
        assert word in str(caught.value)


@pytest.mark.parametrize("hook", sorted(CALLS))
def test_an_error_inside_a_hook_names_plugin_distribution_version_and_hook(hook, site):
    site.module(
        "raising_plugin",
        "from anyblock.contract.hookspecs import hookimpl\n"
        f"class Descriptor:\n    @hookimpl\n    def {hook}(self):\n        raise LookupError('no rope')\n",
    )
    site.distribution("anyblock-raising", "4.2", families={"m": "raising_plugin:Descriptor"})
    with pytest.raises(PluginError, match=rf"anyblock-raising 4\.2: hook {hook}: LookupError: no rope") as caught:
        call(get_family("m", registry=site.registry()), hook)
    assert isinstance(caught.value.__cause__, LookupError)


def test_an_error_that_a_plugin_raises_about_its_input_passes_through():
    error = ConfigError("hidden_act is relu2", expected="silu")
    with pytest.raises(ConfigError) as caught:
        raising("create_block_configs", error).create_block_configs(CONFIG)
    assert caught.value is error


def test_an_exit_inside_a_hook_is_an_error_and_an_interrupt_is_not():
    with pytest.raises(PluginError, match="SystemExit"):
        raising("final_norm_name", SystemExit(3)).final_norm_name()
    with pytest.raises(KeyboardInterrupt):
        raising("final_norm_name", KeyboardInterrupt()).final_norm_name()


def test_the_plugin_at_fault_is_found_among_wrappers():
    class Inner:
        @hookimpl
        def final_norm_name(self):
            raise LookupError("inner")

    class Patient:
        @hookimpl(wrapper=True)
        def final_norm_name(self):
            return (yield)

    class Faulty:
        @hookimpl(wrapper=True)
        def final_norm_name(self):
            yield
            raise LookupError("outer")

    class Fine:
        @hookimpl
        def final_norm_name(self):
            return "norm"

    def culprit(descriptor, *extensions):
        family = ModelFamily.from_descriptor(descriptor, model_type="m", extensions=extensions)
        with pytest.raises(PluginError) as caught:
            family.final_norm_name()
        return caught.value.culprit.origin.distribution.rpartition(".")[2]

    assert culprit(Inner, Patient) == "Inner"
    assert culprit(Fine, Patient, Faulty) == "Faulty"
    assert culprit(Fine, Faulty, Patient) == "Faulty"


def test_two_plugins_that_inherit_one_method_are_told_apart():
    class Shared:
        fails = False

        @hookimpl(wrapper=True)
        def final_norm_name(self):
            result = yield
            if self.fails:
                raise LookupError("mine")
            return result

    class One(Shared):
        pass

    class Two(Shared):
        fails = True

    family = ModelFamily.from_descriptor(returning_norm(), model_type="m", extensions=[One, Two])
    with pytest.raises(PluginError, match=r"\.Two \(given\): hook final_norm_name"):
        family.final_norm_name()


def returning_norm() -> type:
    return type("Norm", (), {"final_norm_name": hookimpl(lambda self: "norm")})


def test_capabilities_are_answered_by_name():
    declared = {
        "convert": Capability(Support.FULL),
        "kv_heads": Capability(Support.PARTIAL, "even numbers"),
        "search": Capability(Support.NOT_IMPLEMENTED),
    }
    family = returning("capabilities", declared)
    assert family.supports("convert")
    assert family.supports("kv_heads")
    assert not family.supports("search")
    assert not family.supports("mamba_heads")
    assert family.capability("kv_heads").note == "even numbers"
    with pytest.raises(UsageError, match="did you mean 'kv_heads'"):
        family.supports("kv_head")
    with pytest.raises(UsageError, match="did you mean 'final_norm_name'"):
        family.implements("final_norm_nam")


def test_a_descriptor_at_hand_is_held_to_the_contract():
    class Misspelled:
        @hookimpl
        def final_norm(self):
            return "norm"

    with pytest.raises(PluginLoadError, match="did you mean 'final_norm_name'"):
        ModelFamily.from_descriptor(Misspelled, model_type="m")


def test_an_override_without_a_marker_in_a_deeper_class_is_no_fault_when_the_last_one_is_marked():
    class Old:
        def final_norm_name(self):
            return "old"

    class New(Old):
        @hookimpl
        def final_norm_name(self):
            return super().final_norm_name() + ".norm"

    assert ModelFamily.from_descriptor(New, model_type="m").final_norm_name() == "old.norm"


def test_static_and_class_methods_may_be_hooks():
    class Still:
        @staticmethod
        @hookimpl
        def layer_block_name(index):
            return f"h.{index}"

        @classmethod
        @hookimpl
        def final_norm_name(cls):
            return cls.__name__

    family = ModelFamily.from_descriptor(Still, model_type="m")
    assert (family.layer_block_name(3), family.final_norm_name()) == ("h.3", "Still")


def test_judging_a_plugin_runs_none_of_its_properties():
    class Lazy:
        @property
        def table(self):
            raise AssertionError("a property was read")

        @hookimpl
        def final_norm_name(self):
            return "norm"

    assert ModelFamily.from_descriptor(Lazy, model_type="m").final_norm_name() == "norm"


def test_the_installed_llama_adapter_answers():
    family = get_family("llama")
    assert (family.model_type, family.distribution) == ("llama", "anyblock-llama")
    assert repr(family) == f"ModelFamily('llama', anyblock-llama {family.version})"
    assert family.layer_block_name(index=3) == "model.layers.3"
    assert family.decoder_layer_cls()[0].__name__ == "LlamaDecoderLayer"
    assert set(family.pruning_mixins()) >= {"ffn_intermediate", "kv_heads"}
    assert family.supports("convert")
    config = family.conformance_config()
    assert len(family.create_block_configs(config)) == config.num_hidden_layers


def test_looking_up_a_family_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from anyblock import get_family; get_family('llama').layer_block_name(0);"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_plugins_are_read_again_when_the_settings_change(monkeypatch):
    from anyblock.extensions import installed_plugins

    monkeypatch.delenv("ANYBLOCK_DISABLE_PLUGINS", raising=False)
    first = installed_plugins()
    assert installed_plugins() is first
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "*")
    assert installed_plugins() is not first
    with pytest.raises(PluginError, match="ANYBLOCK_DISABLE_PLUGINS"):
        get_family("llama")


def test_every_spec_has_a_docstring():
    for name in SPECS:
        assert len(getattr(FamilySpec, name).__doc__.strip()) > 20


def test_a_family_may_be_asked_for_by_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    made = []

    class Counted:
        def __init__(self):
            made.append(self)

        @hookimpl
        def layer_block_name(self, index):
            return f"h.{index}"

    registry = PluginRegistry.from_plugins({"m": Counted})
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda index: get_family("m", registry=registry).layer_block_name(index), range(64)))
    assert names == [f"h.{index}" for index in range(64)]
    assert len(made) == 1
