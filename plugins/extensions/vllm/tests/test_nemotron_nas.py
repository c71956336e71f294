"""The `nemotron-nas` format: what its readers make of the configuration is what the files hold."""

from __future__ import annotations

import json

import pytest
from anyblock import convert_model, export_child, get_family
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize
from anyblock_vllm.nemotron_nas import ffn_mult
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file


@given(st.integers(1, 200), st.integers(1, 20000))
def test_readers_make_the_width_of_the_multiplier(steps, hidden):
    """The formula of vLLM and llama.cpp: `int(2 * ffn_mult * hidden / 3)`, rounded up to a multiple of 256."""
    width = int(2 * ffn_mult(256 * steps, hidden) * hidden / 3)
    assert width + -width % 256 == 256 * steps
    assert ffn_mult(256 * steps - 1, hidden) is None


def child_of(teacher_dir, tmp_path):
    teacher = SubblockCheckpoint.open(teacher_dir)
    block = teacher.block_configs[0]
    chosen = [
        Candidate(0, "ffn", NO_OP, 0, block.with_ffn(no_op=True)),
        Candidate(1, "attention", NO_OP, 0, block.with_attention(no_op=True)),
    ]
    weights = CandidateWeights(teacher, get_family("llama"), load_hf_config(teacher_dir), {})
    return realize(teacher, chosen, weights, tmp_path / "child")


@pytest.mark.parametrize("width", [288, 256])
def test_the_files_hold_what_the_readers_ask_for(width, trained_dir, tmp_path):
    from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

    if width == 256:  # the form with multipliers, which only widths in steps of 256 have
        LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=96, intermediate_size=256, num_hidden_layers=3,
                                     num_attention_heads=6, num_key_value_heads=3)).save_pretrained(tmp_path / "hf")  # fmt: skip
        trained_dir = convert_model(tmp_path / "hf", tmp_path / "teacher")
    out = export_child(child_of(trained_dir, tmp_path), tmp_path / "out", "nemotron-nas")
    config = AutoConfig.from_pretrained(out, trust_remote_code=True)
    assert (config.model_type, config.architectures) == ("nemotron-nas", ["DeciLMForCausalLM"])
    shapes = {}
    for file in out.glob("*.safetensors"):
        shapes |= {name: tuple(tensor.shape) for name, tensor in load_file(file).items()}
    for index, block in enumerate(config.block_configs):
        layer = f"model.layers.{index}"
        assert block.attention.no_op == (index == 1)
        assert (f"{layer}.input_layernorm.weight" in shapes) != block.attention.no_op
        if not block.attention.no_op:
            heads = config.num_attention_heads // block.attention.n_heads_in_group
            assert shapes[f"{layer}.self_attn.k_proj.weight"] == (heads * 16, 96)
        assert block.ffn.no_op == (index == 0)
        assert (f"{layer}.mlp.up_proj.weight" in shapes) != block.ffn.no_op
        assert hasattr(block.ffn, "ffn_mult") == (width == 256)
        if not block.ffn.no_op:
            read = getattr(block.ffn, "intermediate_size", None)
            if read is None:
                read = int(2 * block.ffn.ffn_mult * 96 / 3)
                read += -read % 256
            assert shapes[f"{layer}.mlp.up_proj.weight"] == (read, 96)
    config.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["block_configs"] == json.loads((out / "config.json").read_text())["block_configs"]


def test_what_readers_cannot_run_is_refused(trained_child, tmp_path):
    with pytest.raises(UnsupportedModelError, match="an ffn comes before the first attention") as caught:
        export_child(trained_child, tmp_path / "out", "nemotron-nas")
    assert "transformers" in caught.value.hint
    assert not list(tmp_path.iterdir())
