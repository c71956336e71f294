"""`anyblock from-gguf`: what is refused, and that nothing is left then. `test_families` and `test_tokenizer` read files again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from anyblock.cli import main
from anyblock_gguf import reading
from safetensors.torch import load_file

SIZES = {
    "block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 32, "attention.head_count": 2,
    "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
SHAPES = {
    "token_embd.weight": (16, 32), "output_norm.weight": (32,),
    **{f"blk.0.{name}.weight": (32, 32) for name in MATRICES},
    **{f"blk.0.{name}.weight": (32,) for name in ("attn_norm", "ffn_norm")},
}  # fmt: skip


def written(path: Path, arch: str = "llama", shapes: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a GGUF file as llama.cpp's own scripts do, in F16; `a__b` stands for a key `a.b`."""
    writer = gguf.GGUFWriter(path, arch)
    sizes = SIZES | {key.replace("__", "."): value for key, value in changes.items()}
    for key, value in sizes.items():
        key = key if key.startswith(("split.", "tokenizer.")) else f"{arch}.{key}"
        kind = {float: "float32", str: "string", list: "array", bool: "bool"}.get(type(value), "uint32")
        getattr(writer, f"add_{kind}")(key, value)
    for name, shape in (SHAPES if shapes is None else shapes).items():
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        writer.add_tensor(name, values if len(shape) == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def code(*arguments: Path | str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_what_is_not_read_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = written(tmp_path / "good.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[:-4096])
    extra = {**SHAPES, "blk.0.attn_q_norm.weight": (16,)}
    cases = {
        "architecture mamba": written(tmp_path / "mamba.gguf", "mamba"),
        "cannot be read as a GGUF file": cut,
        "is one of 3 parts": written(tmp_path / "part.gguf", split__count=3),
        "says llama.attention.scale = 0.5": written(tmp_path / "scale.gguf", attention__scale=0.5),
        "llama.rope.scaling.type = longrope": written(tmp_path / "rope.gguf", rope__scaling__type="longrope"),
        "feed_forward_length differ": written(tmp_path / "uneven.gguf", block_count=2, feed_forward_length=[32, 16]),
        "has the tensor blk.0.attn_q_norm.weight": written(tmp_path / "norm.gguf", shapes=extra),
        "factors (rope_freqs.weight) of no Llama 3": written(
            tmp_path / "factors.gguf", shapes={**SHAPES, "rope_freqs.weight": (8,)}
        ),
        "is of llama.cpp's kind bert": written(tmp_path / "bert.gguf", tokenizer__ggml__model="bert"),
    }
    out = tmp_path / "out"
    for reason, file in cases.items():
        assert code("from-gguf", file, out) == 2, reason
        assert reason in " ".join(capsys.readouterr().err.split())
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_save", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        assert code("from-gguf", good, out) != 0
    assert {path.name for path in tmp_path.iterdir()} == {"good.gguf", *(file.name for file in cases.values())}

    assert code("from-gguf", good, out) == 0
    assert "holds the llama model of good.gguf (F16), 1 layers" in " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(good).tensors}
    tensors = {name: tensor for file in out.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert np.array_equal(tensors["model.layers.0.mlp.up_proj.weight"].numpy(), stored["blk.0.ffn_up.weight"])
    assert code("inspect", out) == 0
