"""Architectures in which something is otherwise than in most, each with what is found out about it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.conversion.convert import convert_with
from anyblock.descriptors import Size
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.skeleton import build_skeleton, load_hf_config
from anyblock_new_family.introspection import infer_family, inferred_model_family
from anyblock_new_family.introspection.branches import trace_layer
from anyblock_new_family.introspection.layers import find_layers
from anyblock_new_family.introspection.model import TinyModel, tiny_model
from transformers import CONFIG_MAPPING


def test_of_two_mixers_in_one_layer_only_the_attention_writes_keys_and_values() -> None:
    inferred = infer_family("falcon_h1")
    (attention,) = inferred.kinds("attention").values()
    assert attention.attentions.keys() == {"self_attn"}
    assert "mamba" in attention.zeros
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}


def test_what_a_switch_of_the_configuration_takes_away_tells_no_kinds_apart() -> None:
    marks = {kind.mark for kind in infer_family("bamba").kinds("attention").values()}
    assert not any(mark is not None and mark.endswith("bias") for mark in marks)


def test_a_convolution_behind_the_ffn_does_not_make_it_an_attention() -> None:
    inferred = infer_family("inkling_text")
    (attention,), (ffn,) = inferred.kinds("attention").values(), inferred.kinds("ffn").values()
    assert "mlp_sconv" in ffn.names
    assert "attn_sconv" in attention.names
    assert not {"attention_no_op", "ffn_no_op"} & inferred.attributes["not_implemented"].keys()


@pytest.mark.parametrize("model_type", ["hy_v4", "deepseek_v4", "qwen4_exp_text"])
def test_several_residual_streams_are_refused_with_the_reason(model_type: str) -> None:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    with pytest.raises(UnsupportedModelError, match="several residual streams"):
        infer_family(model_type)


def test_a_norm_that_runs_in_front_of_the_layers_as_well(tmp_path: Path) -> None:
    inferred = infer_family("nanochat")
    tiny, family = TinyModel(inferred.tiny), inferred_model_family(inferred)
    tiny.model.save_pretrained(tmp_path / "model")
    checkpoint = SubblockCheckpoint.open(convert_with(family, tmp_path / "model", tmp_path / "converted"))
    engine = LayerwiseModel(checkpoint, family)
    batch = engine.prepare(tiny.ids)
    hidden = batch.hidden
    for index in range(engine.num_layers):
        hidden = engine.run(index, hidden, batch)
    expected = tiny.model.model(input_ids=tiny.ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(engine.final_hidden(hidden, batch), expected)


def test_random_numbers_that_a_constructor_draws_are_not_missed_by_others() -> None:
    inferred = infer_family("diffllama")
    family, config = inferred_model_family(inferred), inferred.tiny.make()
    torch.manual_seed(3)
    before = copy.deepcopy(torch.get_rng_state())
    build_skeleton(family, config, family.create_block_configs(config))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model_type", ["gemma4_text", "gemma4_unified_text"])
def test_layers_that_differ_by_themselves(model_type: str, tmp_path: Path) -> None:
    """The width of a head is another one in layers of full attention, which `per_layer_config` says."""
    inferred = infer_family(model_type)
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}
    family, tiny = inferred_model_family(inferred), TinyModel(inferred.tiny)
    tiny.model.save_pretrained(tmp_path / "model")
    config = load_hf_config(tmp_path / "model")
    assert [layer.head_dim for layer in config.per_layer_config] == [8, 512]
    blocks = [block.with_ffn(intermediate_size=24) for block in family.create_block_configs(config)]
    model = build_skeleton(family, config, blocks)
    assert [tuple(layer.self_attn.q_proj.weight.shape) for layer in model.model.layers] == [(32, 32), (2048, 32)]
    assert [layer.mlp.down_proj.in_features for layer in model.model.layers] == [24, 24]
    assert [family.cache_spec(config, block, index).per_token for index, block in enumerate(blocks)] == [32, 2048]


def test_a_cache_under_another_name_is_found() -> None:
    """Models of Mamba alone take and return it as `cache_params`; their layers have no ffn."""
    inferred = infer_family("mamba2")
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}
    assert "ffn_no_op" in inferred.attributes["unsupported"]
    family, config = inferred_model_family(inferred), inferred.tiny.make()
    spec = family.cache_spec(config, family.create_block_configs(config)[0], 0)
    assert spec.per_token == 0
    assert spec.fixed + spec.float32 > 0


def test_what_an_ffn_keeps_goes_with_it() -> None:
    inferred = infer_family("inkling_text")
    family, config = inferred_model_family(inferred), inferred.tiny.make()
    block = family.create_block_configs(config)[0]
    whole, without = (family.cache_spec(config, own, 0) for own in (block, block.with_ffn(no_op=True)))
    assert "build" not in inferred.attributes["not_implemented"]
    assert whole.per_token == without.per_token > 0
    assert whole.fixed + whole.float32 > without.fixed + without.float32 > 0


def test_experts_that_a_softmax_weighs_without_a_topk_are_an_ffn() -> None:
    """PhiMoE's router takes one maximum after the other, each behind a softmax."""
    inferred = infer_family("phimoe")
    (attention,), (ffn,) = inferred.kinds("attention").values(), inferred.kinds("ffn").values()
    assert attention.zeros.keys() == set()
    assert ffn.zeros.keys() == {"mlp"}
    assert ffn.sizes["num_experts_per_tok"] == Size("num_experts_per_tok")
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}
    assert any("is taken by its name" in seen for seen in inferred.evidence.values())


def test_of_a_container_of_modules_each_is_removed() -> None:
    """X-MOD's ffn asks a `ModuleDict` with an adapter for each language for its keys."""
    inferred = infer_family("xmod")
    (ffn,) = inferred.kinds("ffn").values()
    assert "output.adapter_modules.en_XX" in ffn.zeros
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}


@pytest.mark.parametrize(
    ("model_type", "arguments"),
    [
        ("afmoe", {"gates": ("gate_proj",)}),
        ("beam", {"gates": ("gate_proj",), "head_rows": ("gate_bias",)}),
        ("flint", {"head_rows": ("softmax_offset",)}),
        ("gpt_oss", {}),
        ("lfm3", {"head_rows": ("gate_proj.weight",)}),
    ],
)
def test_what_else_has_rows_for_every_query_head(model_type: str, arguments: dict[str, tuple[str, ...]]) -> None:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    inferred = infer_family(model_type)
    (heads,) = [call for call in inferred.mixins if call.function == "attention_mixins"]
    plain = {"attention": "self_attn", "linears": ("q_proj", "k_proj", "v_proj", "o_proj")}
    assert heads.arguments == plain | arguments
    assert inferred.attributes["not_implemented"].keys() == {"hidden_size"}


@pytest.mark.parametrize("model_type", ["axk2", "glm_moe_dsa"])
def test_an_attention_that_is_put_together_in_empty_memory_is_found_every_time(model_type: str) -> None:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    tiny = tiny_model(CONFIG_MAPPING[model_type])
    runs = find_layers(tiny.model, tiny.ids, int(tiny.text.num_hidden_layers)).runs
    seen = {tuple(trace_layer(run).branches[0] for run in runs) for _ in range(8)}
    assert len(seen) == 1
    assert all(branch.half == "attention" and branch.attends for branch in seen.pop())


def test_an_embedding_stored_under_the_name_of_a_module_it_is_tied_to_is_one() -> None:
    inferred = infer_family("prophetnet")
    assert "prophetnet.word_embeddings" in inferred.attributes["checkpoint_embeddings"]
    assert not any("word_embeddings" in pattern for pattern in inferred.attributes["extra_groups"].values())
