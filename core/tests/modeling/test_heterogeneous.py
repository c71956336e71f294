"""The scope in which layers get shapes of their own, and that it leaves no trace."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import pytest
import torch
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import UnsupportedModelError
from anyblock.family import get_family
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.skeleton import build_skeleton, load_hf_config
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


def widths(model: LlamaForCausalLM) -> list[int]:
    return [layer.mlp.down_proj.weight.shape[1] for layer in model.model.layers]


def blocks_of(llama_dir: Path, sizes: list[int]) -> list[BlockConfig]:
    teacher = get_family("llama").create_block_configs(load_hf_config(llama_dir))
    return [block.with_ffn(intermediate_size=size) for block, size in zip(teacher, sizes, strict=True)]


def test_each_layer_has_its_own_width_and_nothing_stays_patched(llama_dir: Path) -> None:
    before = LlamaDecoderLayer.__dict__["__init__"]
    config = load_hf_config(llama_dir)
    saved = config.to_dict()
    with heterogeneous(get_family("llama"), blocks_of(llama_dir, [8, 48, 16])):
        model = LlamaForCausalLM(config)
    assert widths(model) == [8, 48, 16]
    assert LlamaDecoderLayer.__dict__["__init__"] is before
    assert widths(LlamaForCausalLM(config)) == [48, 48, 48]
    assert config.to_dict() == saved


def test_an_error_inside_the_scope_leaves_nothing_patched(llama_dir: Path) -> None:
    before = LlamaDecoderLayer.__dict__["__init__"]
    with pytest.raises(UnsupportedModelError, match="1 block configs"):
        build_skeleton(get_family("llama"), load_hf_config(llama_dir), blocks_of(llama_dir, [8, 8, 8])[:1])
    assert LlamaDecoderLayer.__dict__["__init__"] is before


def test_threads_do_not_disturb_each_other(llama_dir: Path) -> None:
    config = load_hf_config(llama_dir)
    before = LlamaDecoderLayer.__dict__["__init__"]
    inside = threading.Barrier(3)
    found: dict[int, list[int]] = {}

    def build(number: int, sizes: list[int] | None) -> None:
        own = copy.deepcopy(config)
        if sizes is None:
            inside.wait()
            found[number] = widths(LlamaForCausalLM(own))
            return
        with heterogeneous(get_family("llama"), blocks_of(llama_dir, sizes)):
            inside.wait()
            found[number] = widths(LlamaForCausalLM(own))

    plans = [[4, 8, 12], [20, 24, 28], None]
    threads = [threading.Thread(target=build, args=(n, sizes)) for n, sizes in enumerate(plans)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [4, 8, 12], 1: [20, 24, 28], 2: [48, 48, 48]}
    assert LlamaDecoderLayer.__dict__["__init__"] is before


def test_the_attention_implementation_reaches_layers_after_the_build(llama_dir: Path) -> None:
    with heterogeneous(get_family("llama"), blocks_of(llama_dir, [8, 48, 16])):
        model = LlamaForCausalLM(load_hf_config(llama_dir))
    model.set_attn_implementation("eager")
    assert {layer.self_attn.config._attn_implementation for layer in model.model.layers} == {"eager"}
    output = model(torch.zeros(1, 4, dtype=torch.long), output_attentions=True)
    assert len(output.attentions) == 3


def test_a_heterogeneous_model_can_be_copied_and_pickled(llama_dir: Path, ids: torch.Tensor) -> None:
    with heterogeneous(get_family("llama"), blocks_of(llama_dir, [8, 48, 16])):
        model = LlamaForCausalLM(load_hf_config(llama_dir)).eval()
    expected = model(ids).logits
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(ids).logits, expected)
        again.set_attn_implementation("eager")
        assert again.model.layers[0].self_attn.config._attn_implementation == "eager"
    assert model.model.layers[0].self_attn.config._attn_implementation == "sdpa"


def test_layers_whose_constructors_take_no_index_are_counted() -> None:
    family = get_family("auto:big_bird")
    config = family.conformance_config()
    teacher = family.create_block_configs(config)
    blocks = [block.with_ffn(intermediate_size=size) for block, size in zip(teacher, (8, 24), strict=True)]
    model = build_skeleton(family, config, blocks)
    assert [layer.intermediate.dense.out_features for layer in model.bert.encoder.layer] == [8, 24]
    with pytest.raises(UnsupportedModelError, match="2 layers were built and counted, for 3 block configs"):
        build_skeleton(family, config, [*blocks, blocks[0]])
