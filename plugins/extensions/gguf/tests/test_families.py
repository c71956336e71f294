"""Every family that the format claims: a tiny random model runs in llama.cpp, and its logits are transformers' own."""

from __future__ import annotations

import shutil
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from anyblock import convert_model, export_child, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.errors import UnsupportedModelError
from anyblock.modeling.skeleton import model_class
from anyblock_gguf.families import families
from anyblock_gguf.reading import write_checkpoint
from anyblock_gguf.types import GgufType
from anyblock_tests.small_llamas import child_of

SIZES = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MULTIPLIERS = {
    "embedding_multiplier": 12.0, "attention_multiplier": 0.2, "residual_multiplier": 0.22, "logits_scaling": 4.0,
}  # fmt: skip
GEMMA = {"tie_word_embeddings": True, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 7}
HYBRID = {
    "head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 8,
}  # fmt: skip
LATENT = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 48, "moe_latent_size": 32,
}  # fmt: skip
KINDS = ["linear_attention", "full_attention", "{}", "linear_attention", "{}"]
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
PART = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", "llama", {"head_dim": 32, "sliding_window": None}),
    "mixtral": ("Mixtral", "llama", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "granite": ("Granite", "granite", {**MULTIPLIERS, "attention_bias": True, "mlp_bias": True}),
    "smollm3": ("SmolLM3", "smollm3", {**SPECIAL, "num_hidden_layers": 5, "use_sliding_window": False}),
    "qwen2": ("Qwen2", "qwen2", {}),
    "qwen2 with yarn": ("Qwen2", "qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", "qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_moe": ("Qwen3Moe", "qwen3moe", {**EXPERTS, "moe_intermediate_size": 32, "norm_topk_prob": True}),
    "olmoe": ("Olmoe", "olmoe", {**EXPERTS, **SPECIAL, "num_key_value_heads": 4}),
    "olmo3": ("Olmo3", "olmo2", {**SPECIAL, "sliding_window": 7}),
    "gemma2": (
        "Gemma2",
        "gemma2",
        {**GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3_text": ("Gemma3Text", "gemma3", {**GEMMA, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}),
    "phi3": ("Phi3", "phi3", {**SPECIAL, "sliding_window": None, "rope_parameters": PART}),
    "gpt_oss": (
        "GptOss",
        "gpt-oss",
        {"intermediate_size": 32, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7,
         "rope_parameters": YARN},
    ),
    "nemotron_h": ("NemotronH", "nemotron_h", {**HYBRID, "layers_block_type": [k.format("mlp") for k in KINDS]}),
    "nemotron_h with experts": (
        "NemotronH", "nemotron_h_moe", {**HYBRID, **LATENT, "layers_block_type": [k.format("moe") for k in KINDS]}
    ),
}  # fmt: skip
NOT_READ = ("gpt_oss", "nemotron_h")
"""Families of which `from-gguf` reads no files."""
PROMPT = [5, 12, 90, 3, 7, 21, 55, 60, 2, 9, 33, 44, 8, 1, 77, 6]
TOLERANCE = {"f32": 2e-5, "q8_0": 0.1}
"""Root mean square of the difference of logits, in their standard deviations."""
OTHER_EXPERT = 0.4
"""The same in Q8_0 of a model with experts, where rounding can have a token choose another one."""
WITH_EXPERTS = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "nemotron_h with experts")
ROUNDED = {"gemma2": 1e-3, "gemma3_text": 1e-3, "nemotron_h": 2e-3, "nemotron_h with experts": 2e-3}
"""Files in F32 of families for which llama.cpp rounds to 16 bits by itself: GELU by a table, and Mamba's convolution."""


def model_of(name: str) -> Any:
    cls, _, changes = MODELS[name]
    sizes = {key: value for key, value in SIZES.items() if cls != "NemotronH" or key != "num_hidden_layers"}
    config = getattr(transformers, f"{cls}Config")(**sizes | changes)
    torch.manual_seed(0)
    model = model_class(config)(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("A_log", "dt_bias", ".D")):
                continue
            shift = 0.5 if parameter.dim() == 1 and "bias" not in key and "sinks" not in key else 0.0
            parameter.copy_(torch.randn_like(parameter) * 0.25 + shift)
    return model.eval()


def apart(found: Any, logits: torch.Tensor) -> float:
    return float(((torch.from_numpy(found) - logits) / logits.std()).square().mean().sqrt())


def test_every_family_is_among_them():
    assert {name.partition(" ")[0] for name in MODELS} == set(families())


@pytest.mark.numerical
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name, tmp_path, llama_cpp):
    model = model_of(name)
    model.save_pretrained(tmp_path / "source")
    teacher = convert_model(tmp_path / "source", tmp_path / "teacher")
    exports = [export_child(teacher, tmp_path / kind, "gguf", settings={"type": kind}) for kind in TOLERANCE]
    found = llama_cpp(exports, prompt=PROMPT)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0]
    for place, (kind, tolerance) in enumerate(TOLERANCE.items()):
        rms = apart(found[f"logits_{place}"], logits)
        size = sum(file.stat().st_size for file in exports[place].iterdir())
        print(f"| {name} | {MODELS[name][1]} | {kind} | {size:,} | {rms:.1e} |")
        own = ROUNDED if kind == "f32" else dict.fromkeys(WITH_EXPERTS, OTHER_EXPERT)
        assert rms < own.get(name, tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_types_of_the_search_are_those_of_the_file(name, tmp_path):
    """To the byte and to the bit: the file in a type holds what the file in F32 of the rounded checkpoint holds."""
    model_of(name).save_pretrained(tmp_path / "source")
    teacher = SubblockCheckpoint.open(convert_model(tmp_path / "source", tmp_path / "teacher"))
    own = GgufType("q4_0")
    (tmp_path / "rounded").mkdir()
    writer = SubblockWriter(tmp_path / "rounded", config=teacher.config, block_configs=teacher.block_configs)
    for group in teacher.groups:
        writer.write(group, {key: own.rounded(key, tensor) for key, tensor in teacher.load(group).items()})
    writer.finish()
    exports = (("teacher", "q4_0"), ("rounded", "f32"))
    files = [export_child(tmp_path / path, tmp_path / kind, "gguf", settings={"type": kind}) for path, kind in exports]
    stored, wide = ({t.name: t for t in gguf.GGUFReader(next(iter(file.iterdir()))).tensors} for file in files)
    sizes = [
        own.nbytes(key, teacher.entry(key).shape) for group in teacher.model_groups for key in teacher.groups[group]
    ]
    assert sum(sizes) == sum(int(tensor.n_bytes) for tensor in stored.values())
    assert stored.keys() == wide.keys()
    for key, tensor in stored.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(values, wide[key].data.reshape(values.shape)), key

    file, read = next(files[0].iterdir()), tmp_path / "read"
    if name.partition(" ")[0] in NOT_READ:
        with pytest.raises(UnsupportedModelError, match=r"a model of llama\.cpp's architecture"):
            write_checkpoint(file, read)
        assert not read.exists()
        return
    write_checkpoint(file, read, dtype="float32")
    prompt = torch.tensor([PROMPT])
    with torch.no_grad():  # transformers, not this project, loads what was written
        logits = transformers.AutoModelForCausalLM.from_pretrained(read)(prompt).logits
        torch.testing.assert_close(logits, load_model(tmp_path / "rounded", dtype="float32")(prompt).logits)


def test_tied_heads(tmp_path, monkeypatch, llama_cpp):
    """Some of llama.cpp's architectures take the embeddings for a missing head, and others ask for one."""
    exports, logits = [], []
    for place, (name, (cls, arch, given)) in enumerate(list(MODELS.items())):
        monkeypatch.setitem(MODELS, name, (cls, arch, given | {"tie_word_embeddings": True}))
        model, folder = model_of(name), tmp_path / str(place)
        model.save_pretrained(folder / "source")
        teacher = convert_model(folder / "source", folder / "teacher")
        exports.append(export_child(teacher, folder / "out", "gguf", settings={"type": "f32"}))
        with torch.no_grad():
            logits.append(model(torch.tensor([PROMPT])).logits[0])
    found = llama_cpp(exports, prompt=PROMPT)
    for place, name in enumerate(MODELS):
        assert apart(found[f"logits_{place}"], logits[place]) < 2e-3, name


REAL = {
    "stories260k": "llama",
    "tiny-qwen3moe-wt2": "qwen3moe",
    "tiny-gptoss-wt2": "gpt-oss",
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_trained_models(name, tmp_path, shared_dir, llama_cpp):
    shutil.copytree(shared_dir / "models" / name, tmp_path / "source")
    if name == "stories260k":  # its tokenizer is one of sentencepiece
        for file in (tmp_path / "source").glob("*token*"):
            file.unlink()
    teacher = convert_model(tmp_path / "source", tmp_path / "teacher")
    exports = [export_child(teacher, tmp_path / kind, "gguf", settings={"type": kind}) for kind in ("f32", "q8_0")]
    prompt = [17, 80, 33, 250, 7, 121, 55, 60, 2, 9, 33, 144, 8, 1, 77, 6]
    found = llama_cpp(exports, prompt=prompt)
    with torch.no_grad():
        logits = load_model(teacher, dtype="float32")(torch.tensor([prompt])).logits[0]
    for place, tolerance in enumerate((2e-3, 0.1)):
        rms = apart(found[f"logits_{place}"], logits)
        print(f"| {name} | {REAL[name]} | {('f32', 'q8_0')[place]} | {rms:.1e} |")
        assert rms < tolerance


@pytest.mark.parametrize("name", ["qwen2", "whole layers"])
def test_children_whose_layers_differ(name, tmp_path, llama_cpp):
    """Qwen2 is a Llama with biases, so that `deci` expresses its children; layers that are gone leave the rest alike."""
    if name == "qwen2":
        case = {
            "class": transformers.Qwen2Config,
            "kv_heads": {1: 1},
            "ffn_intermediate": {0: 24},
            "removed": {2: ("ffn",)},
        }
    else:
        gone = {0: ("attention", "ffn"), 2: ("attention", "ffn")}
        case = {"class": transformers.Qwen3Config, "config": {"head_dim": 16}, "removed": gone}
    child = child_of(tmp_path, case)
    found = llama_cpp([export_child(child, tmp_path / "out", "gguf", settings={"type": "f32"})], prompt=PROMPT)
    with torch.no_grad():
        assert apart(found["logits_0"], load_model(child, dtype="float32")(torch.tensor([PROMPT])).logits[0]) < 2e-5


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        (
            r"intermediate_size is 24 in layer 1, 64 in layer 0, and llama.cpp's qwen3 has one",
            {"ffn_intermediate": {1: 24}},
        ),
        (r"num_key_value_heads is 1 in layer 3, 2 in layer 0", {"kv_heads": {3: 1}}),
        (r"layer 2 lacks its attention", {"removed": {2: ("attention",)}}),
        (r"layer 2 lacks its mlp", {"removed": {2: ("ffn",)}}),
    ],
)
def test_layers_that_differ_are_refused_with_the_reason(reason, case, tmp_path):
    child = child_of(tmp_path, {"class": transformers.Qwen3Config, **case})
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        export_child(child, tmp_path / "out", "gguf")
    assert "transformers" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "reason", "changes"),
    [
        (
            "nemotron_h with experts",
            "dense FFNs next to experts",
            {"layers_block_type": ["mlp", "moe", "linear_attention"]},
        ),
        ("qwen3", "sliding window of 7", {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", "model.layers.0.self_attn.k_proj.bias", {"attention_bias": True}),
        ("qwen3_moe", "norm_topk_prob", {"norm_topk_prob": False}),
        ("qwen3_moe", r"model.layers.0.mlp.down_proj.weight", {"mlp_only_layers": [0]}),
        ("olmoe", "clipped to 1.0", {"clip_qkv": 1.0}),
        ("gemma2", "scaled by 256", {"query_pre_attn_scalar": 256}),
        ("gemma2", "layer 0 has no sliding window", {"layer_types": ["full_attention"] * 4}),
        ("smollm3", "layer 3 rotates", {"no_rope_layers": [1] * 5}),
        ("phi3", "sliding window of 7", {"sliding_window": 7}),
        ("granite", "activation is gelu", {"hidden_act": "gelu"}),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(name, reason, changes, tmp_path, monkeypatch):
    cls, arch, given = MODELS[name]
    monkeypatch.setitem(MODELS, name, (cls, arch, given | changes))
    model_of(name).save_pretrained(tmp_path / "source")
    teacher = convert_model(tmp_path / "source", tmp_path / "teacher")
    with pytest.raises(UnsupportedModelError, match=reason):
        export_child(teacher, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()
