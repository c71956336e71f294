"""Storage types: the bytes are llama.cpp's own, and what it computes from them is what the dequantized weights compute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import pytest
import torch
from anyblock import convert_model, export_child
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock_gguf.library import library_path
from anyblock_gguf.settings import GgufSettings
from anyblock_gguf.storage import stored
from anyblock_tests.small_llamas import child_of
from transformers import Qwen2Config, Qwen2ForCausalLM

TYPES = get_args(get_args(get_args(GgufSettings.model_fields["type"].annotation)[0])[0])
needs_library = pytest.mark.skipif(library_path() is None, reason="xllamacpp is not installed")
PROMPT = [5, 12, 90, 3, 7, 21, 55, 60, 2, 9, 33, 44, 8, 1, 77, 6]
WEIGHTS = {  # root mean square of the weights' change, over that of weights drawn from a normal distribution
    "f32": 0, "f16": 3e-4, "bf16": 3e-3, "q8_0": 0.01, "q6_k": 0.03, "q5_k": 0.06, "q5_0": 0.08, "q4_k": 0.12, "q4_0": 0.15,
    "q3_k": 0.22, "q2_k": 0.4, "mxfp4": 0.2,
}  # fmt: skip
ACTIVATIONS = {"f32": 2e-5, "f16": 3e-3, "bf16": 0.05}
"""By how much logits may differ from those of the dequantized weights, in their standard deviations; 0.1 where llama.cpp
rounds activations to 8 bits."""


def tensors(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.gguf")
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def kinds(folder: Path) -> dict[str, str]:
    return {name: tensor.tensor_type.name for name, tensor in tensors(folder).items()}


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    """Qwen2 with rows of 256: no rows are reordered on the way to the file."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(
        **sizes, vocab_size=96, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (0.5 if parameter.dim() == 1 else 0.0))
    return model.eval()


@pytest.fixture(scope="module")
def teacher(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("types")
    model.save_pretrained(folder / "source")
    return convert_model(folder / "source", folder / "teacher")


@needs_library
def test_llama_cpp_computes_what_the_dequantized_weights_compute(model, teacher, tmp_path, llama_cpp):
    exports = [export_child(teacher, tmp_path / kind, "gguf", settings={"type": kind}) for kind in TYPES]
    found = llama_cpp(exports, prompt=PROMPT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        exact = model(torch.tensor([PROMPT])).logits[0]
        for place, kind in enumerate(TYPES):
            read = tensors(exports[place])
            for name, parameter in model.named_parameters():
                tensor = read[names.get_name(name, try_suffixes=(".weight", ".bias"))]
                values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                parameter.copy_(torch.from_numpy(np.array(values)).reshape(parameter.shape))
                changed = (parameter - before[name]).square().mean().sqrt() / before[name].square().mean().sqrt()
                assert changed <= WEIGHTS[kind], (kind, name)
            logits = model(torch.tensor([PROMPT])).logits[0]
            ours, child = (
                float(((torch.from_numpy(found[f"logits_{place}"]) - other) / other.std()).square().mean().sqrt())
                for other in (logits, exact)
            )
            size = sum(file.stat().st_size for file in exports[place].iterdir())
            print(f"| {kind} | {size:,} | {ours:.1e} | {child:.1e} |")
            assert ours < ACTIVATIONS.get(kind, 0.1), kind
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])


def test_embeddings_head_and_single_tensors_have_types_of_their_own(teacher, tmp_path):
    given = {
        "type": "Q4_0", "embedding_type": "q8_0", "head_type": "bf16", "tensor_types": {r"blk\.1\.ffn_down": "q5_0", "ffn": "f32"},
    }  # fmt: skip
    found = kinds(export_child(teacher, tmp_path / "out", "gguf", settings=given))
    assert (found["token_embd.weight"], found["output.weight"]) == ("Q8_0", "BF16")
    assert (found["blk.1.ffn_down.weight"], found["blk.0.ffn_down.weight"]) == ("Q5_0", "F32")
    assert (found["blk.0.attn_q.weight"], found["blk.0.attn_q.bias"]) == ("Q4_0", "F32")


@pytest.mark.parametrize("given", [{"type": "q9"}, {"tensor_types": {"(": "f16"}}, {"embeddings": "f16"}])
def test_settings_that_do_not_exist_are_refused(given, teacher, tmp_path):
    with pytest.raises(UsageError, match="settings of format gguf"):
        export_child(teacher, tmp_path / "out", "gguf", settings=given)
    assert not (tmp_path / "out").exists()


FALLBACKS = {"q2_k": "IQ4_NL", "q3_k": "IQ4_NL", "q4_k": "Q5_0", "q5_k": "Q5_1", "q6_k": "Q8_0", "q4_0": "Q4_0"}


@needs_library
@pytest.mark.parametrize("kind", FALLBACKS)
def test_rows_that_the_type_does_not_divide_get_a_named_larger_one(kind, tmp_path):
    """The rows of these children have 32 values, and 24 in one matrix."""
    child = child_of(tmp_path, {"ffn_intermediate": {1: 24}})
    with pytest.warns(UserWarning, match=r"1 tensors with rows of 24 are F16.*: blk\.1\.ffn_down\.weight") as caught:
        out = export_child(child, tmp_path / "out", "gguf", settings={"type": kind})
    found = kinds(out)
    assert found["blk.1.ffn_down.weight"] == "F16"
    assert found["blk.1.ffn_up.weight"] == FALLBACKS[kind]
    (said,) = [str(warning.message) for warning in caught if "tensors with rows" in str(warning.message)]
    (file,) = out.iterdir()
    assert f"{file.stat().st_size:,} bytes" in said
    fallen = {name for name, own in found.items() if own not in (kind.upper(), "F32")}
    assert set(re.findall(r"[\w.]+\.weight", said)) == fallen


@pytest.mark.parametrize("kind", ["q4_k", "q8_0"])
def test_strictly_they_are_refused_before_anything_is_written(kind, tmp_path):
    child = child_of(tmp_path, {"ffn_intermediate": {1: 24}})
    with pytest.raises(UnsupportedModelError, match=r"rows of 24 are F16.*blk\.1\.ffn_down\.weight"):
        export_child(child, tmp_path / "out", "gguf", settings={"type": kind, "strict": True})
    assert not (tmp_path / "out").exists()


def test_without_the_library_its_types_are_refused_with_what_to_install(teacher, tmp_path, monkeypatch):
    from anyblock_gguf import library

    library.library.cache_clear()
    monkeypatch.setattr(library, "library_path", lambda: None)
    with pytest.raises(UsageError, match="xllamacpp") as caught:
        export_child(teacher, tmp_path / "out", "gguf", settings={"type": "q4_k"})
    assert "anyblock-gguf[llama-cpp]" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert kinds(export_child(teacher, tmp_path / "q8", "gguf", settings={"type": "q8_0"}))["output.weight"] == "Q8_0"


@needs_library
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q2_K"])
def test_importance_moves_the_error_to_inputs_that_count_less(kind):
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    counts = torch.ones(256)
    counts[::4] = 100.0
    own = gguf.GGMLQuantizationType[kind]
    errors = []
    for importance in ({}, {"w": counts}):
        values = gguf.quants.dequantize(stored("w", weight, own, importance), own)
        errors.append((torch.from_numpy(np.array(values)) - weight).square())
    assert (errors[1] * counts).mean() < 0.9 * (errors[0] * counts).mean()


@needs_library
def test_stacked_experts_have_importances_of_their_own():
    torch.manual_seed(0)
    weight = torch.randn(2, 8, 256)
    counts = torch.rand(2, 256) + 0.1
    own = gguf.GGMLQuantizationType.Q4_K
    together = stored("w", weight, own, {"w": counts})
    for index in range(2):
        assert (together[index] == stored("w", weight[index], own, {"w": counts[index]})).all()


@needs_library
def test_importance_is_measured_on_a_text(trained_child, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little dog. " * 100, encoding="utf-8")
    plain, weighed = (
        export_child(trained_child, tmp_path / str(len(more)), "gguf", settings={"type": "q4_0"} | more)
        for more in ({}, {"importance": str(text), "importance_tokens": 512})
    )
    assert kinds(plain) == kinds(weighed)
    first, second = tensors(plain), tensors(weighed)
    differ = {name for name in first if not np.array_equal(first[name].data, second[name].data)}
    assert "blk.1.attn_q.weight" in differ
    assert "token_embd.weight" not in differ


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"a", "tokens"), (b"\xff\xfe", "utf-8")])
def test_a_text_that_is_none_is_refused(content, reason, trained_child, tmp_path):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        export_child(trained_child, tmp_path / "out", "gguf", settings={"importance": str(text)})
    assert not (tmp_path / "out").exists()
