"""What the bases make of the class attributes by which a family says what differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from anyblock.contract.blocks import FFNConfig, MoEConfig
from anyblock.contract.capabilities import CAPABILITIES, Support
from anyblock.descriptors import DenseDescriptor, DescriptorBase, HalfLayout, Size, SparseDescriptor
from anyblock.errors import ConfigError, PluginError
from anyblock.family import ModelFamily
from torch import nn


class Nested(DenseDescriptor):
    decoder_prefix = "model.text"
    checkpoint_prefix = "text.model"
    checkpoint_head = ("text.model.norm", "text.lm_head")
    checkpoint_ffn = "feed_forward"
    text_config = "text_config"
    attention_norms = ("norm_1", "norm_2")
    ffn_norms = ("norm_3",)
    attention_linears = ("qkv", "out")
    ffn_linears = ("gate_up", "down")
    fused_gate_up = "halves"
    not_implemented = ("query_groups",)
    extra_groups: ClassVar = {"vision_encoding": r"vision\..+"}


class Sparse(SparseDescriptor):
    experts = "n_experts"
    expert_width = "width"
    router = "router"
    expert_linears = ("w1", "w3", "w2")
    dense_layers = "first_dense"


TEXT = SimpleNamespace(
    num_hidden_layers=2,
    num_key_value_heads=2,
    intermediate_size=48,
    n_experts=8,
    num_experts_per_tok=2,
    width=16,
    hidden_size=32,
    num_attention_heads=4,
    first_dense=1,
)


def family(descriptor: type[DescriptorBase]) -> ModelFamily:
    return ModelFamily.from_descriptor(descriptor(), model_type="any")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("text.model.embed_tokens.weight", "embeddings"),
        ("text.model.norm.weight", "lm_head"),
        ("text.lm_head.weight", "lm_head"),
        ("vision.layers.0.self_attn.qkv.weight", "vision_encoding"),
        ("text.model.layers.0.norm_2.weight", "block_0_attention"),
        ("text.model.layers.1.self_attn.qkv.bias", "block_1_attention"),
        ("text.model.layers.1.feed_forward.gate_up.weight", "block_1_ffn"),
        ("text.model.layers.1.norm_3.weight", "block_1_ffn"),
        ("model.text.layers.1.norm_3.weight", None),
        ("text.model.layers.1.mlp.gate_up.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_groups_follow_checkpoint_names(name: str, group: str | None) -> None:
    patterns = family(Nested).layer_name_predicates(2, None)
    assert [found for found, pattern in patterns.items() if pattern.fullmatch(name)] == ([group] if group else [])


def test_paths_follow_module_names() -> None:
    nested = family(Nested)
    assert nested.layer_block_name(3) == "model.text.layers.3"
    assert nested.final_norm_name() == "model.text.norm"
    assert nested.output_embedding_name() == "lm_head"
    assert nested.language_model_config(SimpleNamespace(text_config=TEXT)) is TEXT
    assert len(nested.create_block_configs(SimpleNamespace(text_config=TEXT))) == 2


def test_mixins_take_names_from_the_attributes() -> None:
    nested = family(Nested)
    block = nested.create_block_configs(SimpleNamespace(text_config=TEXT))[0]
    mixins = nested.pruning_mixins()
    assert set(mixins) == {"ffn_intermediate", "kv_heads"}
    ffn = mixins["ffn_intermediate"].axes(1, block, TEXT)
    assert [axis.name.rpartition(".layers.1.")[2] for axis in ffn if axis.required] == [
        "feed_forward.down.weight",
        "feed_forward.gate_up.weight",
    ]
    assert {axis.name for axis in ffn} >= {"text.model.layers.1.feed_forward.down.weight"}
    fused = next(axis for axis in mixins["kv_heads"].axes(0, block, TEXT) if axis.name.endswith("qkv.weight"))
    assert [segment.role for segment in fused.segments] == ["query", "unit", "unit"]
    stream = {
        "text.model.layers.0.self_attn.qkv.weight": 1,
        "text.model.layers.0.feed_forward.down.weight": 0,
        "text.model.layers.0.norm_2.weight": 0,
        "text.model.norm.weight": 0,
    }
    found = nested.residual_stream().axes([*stream, "vision.norm.weight"])
    assert {axis.name: axis.dim for axis in found} == stream


def test_only_a_family_that_offers_the_hidden_size_needs_a_norm_of_a_half() -> None:
    """A norm that both halves share belongs to neither."""

    class Shared(DenseDescriptor):
        attention_norms = ()
        ffn_norms = ()
        not_implemented = ("hidden_size",)

    class Offering(Shared):
        not_implemented = ()

    shared = family(Shared)
    assert set(shared.pruning_mixins()) == {"ffn_intermediate", "kv_heads", "query_groups"}
    assert shared.residual_stream() is None
    with pytest.raises(PluginError, match="no norm whose output ranks the channels"):
        family(Offering).residual_stream()


def test_every_capability_is_declared() -> None:
    states = {name: capability.support for name, capability in family(Nested).capabilities().items()}
    assert states.keys() == CAPABILITIES.keys()
    assert states["kv_heads"] == states["search"] == Support.FULL
    assert states["query_groups"] == Support.NOT_IMPLEMENTED
    assert states["experts_removal"] == states["mamba_heads"] == Support.UNSUPPORTED


def test_a_sparse_family_has_dense_layers_where_it_says_so() -> None:
    sparse = family(Sparse)
    dense, experts = sparse.create_block_configs(TEXT)
    assert dense.ffn.intermediate_size == 48
    assert experts.ffn.moe == MoEConfig(num_local_experts=8, num_experts_per_tok=2, expert_intermediate_dim=16)
    assert sparse.block_config_to_layer_overrides(dense) == {"num_key_value_heads": 2, "intermediate_size": 48}
    assert sparse.block_config_to_layer_overrides(experts) == {
        "num_key_value_heads": 2,
        "n_experts": 8,
        "num_experts_per_tok": 2,
        "width": 16,
    }
    mixins = sparse.pruning_mixins()
    assert not mixins["experts_removal"].applies_to(dense)
    assert not mixins["ffn_intermediate"].applies_to(experts)
    names = [axis.name for axis in mixins["expert_intermediate"].axes(1, experts, TEXT) if axis.required][:3]
    assert [name.rpartition(".mlp.")[2] for name in names] == [
        "experts.0.w2.weight",
        "experts.0.w1.weight",
        "experts.0.w3.weight",
    ]
    names = ["model.layers.1.mlp.router.weight", "model.layers.1.mlp.experts.3.w1.weight"]
    reads = sparse.residual_stream().axes(names)
    assert [axis.dim for axis in reads] == [1, 1]
    assert sparse.supports("ffn_intermediate")
    assert sparse.supports("experts_removal")


class SharedNorm(DenseDescriptor):
    """As cohere2 and phi: one norm feeds both halves, so it leaves with neither."""

    attention_norms = ffn_norms = ()
    other = ("input_layernorm",)
    not_implemented = ("hidden_size",)


def test_a_norm_that_feeds_both_halves_belongs_to_neither() -> None:
    shared = family(SharedNorm)
    assert set(shared.pruning_mixins()) == {"ffn_intermediate", "kv_heads", "query_groups"}
    assert shared.residual_stream() is None
    assert not shared.supports("hidden_size")
    patterns = shared.layer_name_predicates(2, TEXT)
    name = "model.layers.1.input_layernorm.weight"
    assert [group for group, pattern in patterns.items() if pattern.fullmatch(name)] == ["block_1_other"]


def test_hidden_size_without_a_norm_is_refused_with_the_way_out() -> None:
    class Offers(SharedNorm):
        not_implemented = ()

    with pytest.raises(PluginError, match=r'not_implemented = \("hidden_size",\)'):
        family(Offers).residual_stream()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"attention_norm": ("norm",)},
            "attention_norm is not an attribute of a descriptor; did you mean 'attention_norms'",
        ),
        ({"not_implemented": "hidden_size"}, "not_implemented is 'hidden_size': input should be a valid tuple"),
        ({"attention_norms": "norm"}, "attention_norms is 'norm': input should be a valid tuple"),
        ({"ffn_sizes": {"intermediate_size": "n_inner"}}, "ffn_sizes is .*: input should be an instance of Size"),
        ({"fused_gate_up": "mixed"}, "fused_gate_up is 'mixed': input should be 'halves' or 'interleaved'"),
        ({"kinds": ("kv_heads",), "ffn_returns": "2"}, "kinds is not an attribute .*; ffn_returns is '2'"),
    ],
)
def test_an_attribute_that_no_base_knows_or_of_another_type_is_refused(
    attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        type("Misspelt", (DenseDescriptor,), attributes)
    type("Own", (DenseDescriptor,), {f"_{name}": value for name, value in attributes.items()})


def test_layouts_are_checked_where_they_are_made() -> None:
    with pytest.raises(PluginError, match=r"HalfLayout.names is 'self_attn'"):
        HalfLayout(names="self_attn")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="did you mean 'num_key_value_heads'"):
        HalfLayout(names=("self_attn",), sizes={"num_key_value_head": Size("n_kv")})


@pytest.mark.parametrize(
    ("size", "config", "expected"),
    [
        (Size("width"), {"width": 6}, 6),
        (Size("width"), {"width": [6, 8]}, 8),
        (Size("width", times=4), {"width": 6}, 24),
        (Size("width", per=2), {"width": 6}, 3),
        (Size("width", times="shared"), {"width": 6, "shared": 2}, 12),
        (Size("width", times="shared"), {"width": 6, "shared": None}, None),
        (Size("inner", default=Size("width", times=4)), {"inner": None, "width": 6}, 24),
        (Size("inner", default=Size("width", times=4)), {"inner": 5, "width": 6}, 5),
    ],
)
def test_a_size_is_read_from_the_configuration(size: Size, config: dict[str, Any], expected: int | None) -> None:
    assert size.read(SimpleNamespace(**config), 1) == expected


@pytest.mark.parametrize("value", [6.0, "6", True])
def test_a_size_that_is_not_a_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="width is"):
        Size("width").read(SimpleNamespace(width=value), 0)


@pytest.mark.parametrize(
    ("sizes", "moe", "expected"),
    [
        (
            {"expert_intermediate_dim": Size("width"), "shared_expert_intermediate_dim": Size("width", times="shared")},
            MoEConfig(
                num_local_experts=4,
                num_experts_per_tok=2,
                expert_intermediate_dim=5,
                shared_expert_intermediate_dim=15,
            ),
            {"width": 5, "shared": 3},
        ),
        (
            {"intermediate_size": Size("width")},
            MoEConfig(num_local_experts=4, num_experts_per_tok=2, expert_intermediate_dim=5),
            {},
        ),
    ],
)
def test_a_constructor_is_given_what_a_size_is_made_of(
    sizes: dict[str, Size], moe: MoEConfig, expected: dict[str, int]
) -> None:
    kind = HalfLayout(names=("mlp",), sizes=sizes)
    assert dict(kind.overrides(FFNConfig(moe=moe))) == expected


def test_sizes_of_dense_layers_go_back_to_their_attributes() -> None:
    sizes = {"intermediate_size": Size("inner", per=2, default=Size("width", times=4))}
    dense = FFNConfig(intermediate_size=7)
    assert dict(HalfLayout(names=("mlp",), sizes=sizes).overrides(dense)) == {"inner": 14}
    fixed = {"intermediate_size": Size("width", times=4, fixed=True)}
    assert dict(HalfLayout(names=("mlp",), sizes=fixed).overrides(dense)) == {}


def test_a_half_whose_modules_the_layer_does_not_have_is_not_removed_in_silence() -> None:
    layer = nn.Module()
    layer.add_module("self_attention", nn.Linear(2, 2))
    with pytest.raises(AttributeError, match="none of the modules self_attn"):
        DenseDescriptor().attn_no_op_post_init(layer)
