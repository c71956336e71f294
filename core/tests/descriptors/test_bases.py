"""What the bases make of the class attributes by which a family says what differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from anyblock.contract.blocks import MoEConfig
from anyblock.contract.capabilities import CAPABILITIES, Support
from anyblock.descriptors import DenseDescriptor, DescriptorBase, SparseDescriptor
from anyblock.family import ModelFamily


class Nested(DenseDescriptor):
    decoder_prefix = "model.text"
    checkpoint_prefix = "text.model"
    checkpoint_head = "text.lm_head"
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
    kinds = (*SparseDescriptor.kinds, "ffn_intermediate")

    def is_sparse(self, text_config: Any, layer_index: int) -> bool:
        return layer_index > 0


TEXT = SimpleNamespace(
    num_hidden_layers=2,
    num_key_value_heads=2,
    intermediate_size=48,
    n_experts=8,
    num_experts_per_tok=2,
    width=16,
    hidden_size=32,
    num_attention_heads=4,
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
