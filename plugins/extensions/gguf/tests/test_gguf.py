"""The GGUF formats, read back with the package `gguf`; `test_llama_cpp.py` runs them in llama.cpp."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest
import torch
from anyblock import convert_model, export_child, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import UnsupportedModelError
from anyblock_gguf.form import GgufFormat
from anyblock_gguf.layers import layer_sizes
from anyblock_gguf.rope import rope_factors
from anyblock_tests.fixtures import TRAINED
from anyblock_tests.small_llamas import CASES, LLAMA3, child_of, tokenizer_like
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

ASSET = TRAINED
HALVES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def read(folder: Path):
    (path,) = folder.iterdir()
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).reshape(
            tuple(int(size) for size in reversed(tensor.shape))
        )
        for tensor in reader.tensors
    }
    return fields, tensors, {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}


def as_stored_by_transformers(
    name: str, tensor: torch.Tensor, heads: dict[str, list[int]], places: list[int]
) -> tuple[str, torch.Tensor]:
    """Undo the names and the order of rotary pairs: row 2r and 2r + 1 of a head belong at r and at r + half."""
    if not name.startswith("blk."):
        module, _, kind = name.rpartition(".")
        return f"{OUTER[module]}.{kind}", tensor
    _, index, part, kind = name.split(".")
    if part in heads:
        count = heads[part][int(index)]
        pairs = tensor.reshape(count, -1, 2, *tensor.shape[1:])
        tensor = torch.cat([pairs[:, :, 0], pairs[:, :, 1]], 1).reshape(tensor.shape)
    return f"model.layers.{places[int(index)]}.{HALVES[part]}.{kind}", tensor


@pytest.mark.parametrize("name", CASES)
def test_the_file_holds_the_childs_tensors_and_sizes(name, tmp_path):
    child = SubblockCheckpoint.open(child_of(tmp_path, CASES[name]))
    fields, tensors, types = read(export_child(child.path, tmp_path / "out", "gguf"))
    arch = fields["general.architecture"]
    blocks = child.block_configs
    places = [index for index, block in enumerate(blocks) if not (block.attention.no_op and block.ffn.no_op)]
    whole = not any(blocks[place].attention.no_op or blocks[place].ffn.no_op for place in places)
    assert arch == ("llama" if whole and len({blocks[place] for place in places}) == 1 else "deci")
    assert fields[f"{arch}.block_count"] == len(places)
    keys = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv", "width": "feed_forward_length"}
    sizes = {key: fields[f"{arch}.{name}"] for key, name in keys.items()}
    sizes = {key: value if isinstance(value, list) else [value] * len(places) for key, value in sizes.items()}
    factors = tensors.pop("rope_freqs.weight", None)
    assert (factors is not None) == (name == "llama3")
    found = dict(as_stored_by_transformers(key, value, sizes, places) for key, value in tensors.items())
    wanted = {key: tensor for group in child.model_groups for key, tensor in child.load(group).items()}
    for key, tensor in found.items():
        if key in wanted:
            assert torch.equal(tensor, wanted.pop(key).float()), key
        else:
            assert not tensor.any(), key
    assert not wanted
    assert {kind for key, kind in types.items() if tensors.get(key, torch.ones(1)).dim() == 1} == {"F32"}
    assert {kind for key, kind in types.items() if key in tensors and tensors[key].dim() == 2} == {"F16"}
    for index in range(len(places)):
        assert (f"blk.{index}.attn_q.weight" in tensors) == (sizes["attn_q"][index] > 0)
        assert (f"blk.{index}.ffn_up.weight" in tensors) == (sizes["width"][index] > 0)
        if sizes["width"][index]:
            assert len(tensors[f"blk.{index}.ffn_up.weight"]) == sizes["width"][index]


def test_eight_bits_are_within_half_a_step(trained_child, tmp_path):
    """Q8_0 rounds each block of 32 to steps of 1/127 of its largest value; the step itself is rounded to 11 bits."""
    _, exact, _ = read(export_child(trained_child, tmp_path / "f16", "gguf"))
    _, rounded, types = read(export_child(trained_child, tmp_path / "q8", "gguf", settings={"type": "q8_0"}))
    assert exact.keys() == rounded.keys()
    for name, tensor in exact.items():
        if types[name] != "Q8_0":
            assert tensor.dim() == 1 or tensor.shape[-1] % 32
            continue
        blocks = tensor.reshape(-1, 32)
        step = blocks.abs().amax(1, keepdim=True) / 127
        assert ((rounded[name].reshape(-1, 32) - blocks).abs() <= step * 0.57).all(), name


block_configs = st.builds(
    BlockConfig,
    attention=st.one_of(
        st.just(AttentionConfig(no_op=True)),
        st.builds(
            AttentionConfig, num_key_value_heads=st.integers(1, 2), num_attention_heads=st.sampled_from([None, 2])
        ),
    ),
    ffn=st.one_of(st.just(FFNConfig(no_op=True)), st.builds(FFNConfig, intermediate_size=st.integers(1, 64))),
)


@given(st.lists(block_configs, min_size=1, max_size=6))
def test_llama_cpp_skips_no_half_that_the_child_has(blocks):
    """The rules of `src/models/deci.cpp`: what it leaves out of a layer is exactly what the child lacks."""
    sizes = layer_sizes(blocks, [block.attention.num_attention_heads or 4 for block in blocks])
    assert sizes[0].heads > 0
    assert sizes[-1].width > 0
    for layer, block in zip(sizes, blocks, strict=True):
        if layer.width == 0:  # the layer is skipped
            assert block.attention.no_op
            assert block.ffn.no_op
        assert layer.zero_attention == (block.attention.no_op and layer.heads > 0)
        assert layer.zero_ffn == (block.ffn.no_op and layer.width > 0)
        assert (layer.heads > 0) == (layer.kv_heads > 0)
        assert block.attention.no_op or layer.heads == (block.attention.num_attention_heads or 4)
        assert block.ffn.no_op or layer.width == block.ffn.intermediate_size


def test_rotary_factors_are_what_frequencies_are_divided_by():
    from transformers import LlamaConfig, LlamaModel

    shape = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 8}
    plain = LlamaConfig(**shape, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    scaled = LlamaConfig(**shape, rope_parameters=LLAMA3)
    assert rope_factors(plain) is None
    frequencies = [LlamaModel(config).rotary_emb.inv_freq for config in (plain, scaled)]
    torch.testing.assert_close(frequencies[0] / rope_factors(scaled), frequencies[1])
    assert rope_factors(scaled)[0] == 1
    assert rope_factors(scaled)[-1] == 8


def test_the_tokenizer_comes_along(trained_child, tmp_path):
    fields, _, _ = read(export_child(trained_child, tmp_path / "out", "gguf"))
    tokenizer = AutoTokenizer.from_pretrained(trained_child)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(range(512))
    data = json.loads((trained_child / "tokenizer.json").read_text())
    assert fields["tokenizer.ggml.merges"] == [" ".join(pair) for pair in data["model"]["merges"]]
    assert fields["tokenizer.ggml.token_type"] == [int(gguf.TokenType.CONTROL)] + [int(gguf.TokenType.NORMAL)] * 511
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is False


def test_the_chat_template_and_a_leading_token_are_said(tmp_path):
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    post = {"type": "TemplateProcessing", "single": [special, sequence], "pair": [special, sequence, special, sequence],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}  # fmt: skip
    tokenizer = tokenizer_like(ASSET, tmp_path / "tokenizer", post_processor=post)
    child = child_of(tmp_path, {"removed": {1: ("ffn",)}}, tokenizer)
    (child / "chat_template.jinja").write_text("{{ messages }}")
    fields, _, _ = read(export_child(child, tmp_path / "out", "gguf"))
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_the_tokenizer_does_decides_and_not_what_its_settings_say(tmp_path, leading, wrapped):
    """transformers encodes by the post-processor, whatever `add_bos_token` in tokenizer_config.json says."""
    special, sequence = (
        {kind: {"id": name, "type_id": 0}} for kind, name in (("SpecialToken", "<|endoftext|>"), ("Sequence", "A"))
    )
    single = [special, sequence] if leading else [sequence, special]
    post = {"type": "TemplateProcessing", "single": single, "pair": [*single, sequence],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    post = {"type": "Sequence", "processors": [byte_level, post]} if wrapped else post
    tokenizer = tokenizer_like(ASSET, tmp_path / "tokenizer", post_processor=post)
    file = tokenizer / "tokenizer_config.json"
    said = {"add_bos_token": not leading, "add_eos_token": leading}
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    child = child_of(tmp_path, {"removed": {1: ("ffn",)}}, tokenizer)
    ids = AutoTokenizer.from_pretrained(child)("a").input_ids
    assert (ids[0] == 0, ids[-1] == 0) == (leading, not leading)
    fields, _, _ = read(export_child(child, tmp_path / "out", "gguf"))
    assert fields["tokenizer.ggml.add_bos_token"] is leading
    assert fields["tokenizer.ggml.add_eos_token"] is not leading


def test_embeddings_without_a_token_get_an_unused_one(tmp_path):
    child = child_of(tmp_path, {"config": {"vocab_size": 520}}, ASSET)
    fields, _, _ = read(export_child(child, tmp_path / "out", "gguf"))
    assert fields["tokenizer.ggml.tokens"][511:] == [
        fields["tokenizer.ggml.tokens"][511],
        *(f"[PAD{i}]" for i in range(512, 520)),
    ]
    assert fields["tokenizer.ggml.token_type"][512:] == [int(gguf.TokenType.UNUSED)] * 8


@pytest.mark.parametrize(
    ("reason", "config"),
    [
        ("type dynamic", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
        ("not silu", {"hidden_act": "gelu"}),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(reason, config, tmp_path):
    child = child_of(tmp_path, {"config": config})
    with pytest.raises(UnsupportedModelError, match=reason):
        export_child(child, tmp_path / "out", "gguf")


@pytest.mark.parametrize("half", ["attention", "ffn"])
def test_a_linear_map_in_place_of_a_half_is_refused(half, trained_child):
    from anyblock import get_family
    from anyblock.export.exported_child import ExportedChild

    child = SubblockCheckpoint.open(trained_child)
    blocks = list(child.block_configs)
    blocks[3] = blocks[3].with_half(half, replace_with_linear=True)
    object.__setattr__(child, "block_configs", blocks)
    assert GgufFormat().obstacles(ExportedChild(child, get_family("llama"))) == [
        f"layer 3 has a linear map in place of its {half}, which the form cannot express"
    ]


def test_values_beyond_16_bits_are_refused(trained_child, tmp_path):
    from safetensors.torch import load_file, save_file

    child = tmp_path / "child"
    shutil.copytree(trained_child, child)
    file = child / "subblocks_safetensors" / "block_3_ffn.safetensors"
    tensors = load_file(file)
    tensors["model.layers.3.mlp.up_proj.weight"][0, 0] = 7e4
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"blk\.2\.ffn_up\.weight has values that are no float16"):
        export_child(child, tmp_path / "out", "gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def test_transformers_reads_a_uniform_child_back(tmp_path):
    """An independent reader of the `llama` form: its logits are the model's own."""
    from transformers import AutoModelForCausalLM

    teacher = convert_model(ASSET, tmp_path / "teacher")
    out = export_child(teacher, tmp_path / "out", "gguf")
    model = AutoModelForCausalLM.from_pretrained(out, gguf_file="model-f16.gguf", dtype=torch.float32).eval()
    ids = torch.arange(1, 25).reshape(2, 12)
    torch.testing.assert_close(
        model(ids).logits, load_model(teacher, dtype="float32")(ids).logits, atol=2e-3, rtol=1e-3
    )
