"""Checkpoints for the tests, written without the code under test."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "U8": 1, "BOOL": 1}
Spec = Mapping[str, tuple[str, tuple[int, ...]]]


def raw_file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return the bytes of a safetensors file with any header (bytes are taken as they are)."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor_file(spec: Spec, seed: int = 0) -> bytes:
    """Return a valid file with random bytes for `{name: (dtype, shape)}`, in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in spec.items():
        end = position + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = random.Random(seed).randbytes(position)
    return raw_file(text, data.translate(bytes(value % 2 if _has_bool(spec) else value for value in range(256))))


def _has_bool(spec: Spec) -> bool:
    return any(dtype == "BOOL" for dtype, _ in spec.values())


def llama_spec(layers: int = 2, *, hidden: int = 16, ffn: int = 24, vocab: int = 32, dtype: str = "F32") -> Spec:
    """Return names and shapes of a Llama with 4 query and 2 key-value heads and an untied head."""
    kv = hidden // 2
    spec: dict[str, tuple[str, tuple[int, ...]]] = {
        "lm_head.weight": (dtype, (vocab, hidden)),
        "model.embed_tokens.weight": (dtype, (vocab, hidden)),
    }
    for index in range(layers):
        shapes = {
            "input_layernorm": (hidden,),
            "mlp.down_proj": (hidden, ffn),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "post_attention_layernorm": (hidden,),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.v_proj": (kv, hidden),
        }
        spec |= {f"model.layers.{index}.{name}.weight": (dtype, shape) for name, shape in shapes.items()}
    return spec | {"model.norm.weight": (dtype, (hidden,))}


def llama_config(layers: int = 2, *, hidden: int = 16, ffn: int = 24, vocab: int = 32) -> dict[str, Any]:
    """Return the `config.json` that goes with `llama_spec`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "float32",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
    }


def write_checkpoint(folder: Path, spec: Spec, config: Mapping[str, Any], *, shards: int = 1) -> Path:
    """Write a Hugging Face directory; with several shards, tensors are dealt out in runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(tensor_file(spec))
        return folder
    names = list(spec)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        (folder / file).write_bytes(tensor_file({name: spec[name] for name in part}, seed=number))
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def all_bytes(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return `{tensor: (dtype, shape, bytes)}` of every safetensors file below a folder, read by the library."""
    from safetensors import deserialize

    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for name, tensor in deserialize(file.read_bytes()):
            assert name not in found
            found[name] = (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
    return found


class Tools:
    """The functions above, for tests, which cannot import a conftest."""

    raw_file = staticmethod(raw_file)
    tensor_file = staticmethod(tensor_file)
    llama_spec = staticmethod(llama_spec)
    llama_config = staticmethod(llama_config)
    write_checkpoint = staticmethod(write_checkpoint)
    all_bytes = staticmethod(all_bytes)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A small Llama in one file."""
    return write_checkpoint(tmp_path / "llama", llama_spec(), llama_config())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same in three shards."""
    return write_checkpoint(tmp_path / "sharded", llama_spec(), llama_config(), shards=3)


@pytest.fixture
def converted(llama: Path, tmp_path: Path) -> Path:
    """The small Llama as a subblock checkpoint."""
    from anyblock.conversion.convert import convert_model

    return convert_model(llama, tmp_path / "converted")


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[Any], Any]], None]:
    """Change a JSON file by a function that changes the data in place."""

    def edit(path: Path, change: Callable[[Any], Any]) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material beside the repository; the test is skipped where it is absent."""
    if given := os.environ.get("ANYBLOCK_SHARED"):
        place = Path(given)
    else:
        root = next((parent for parent in Path(__file__).parents if (parent / "noxfile.py").exists()), None)
        root = root or next(parent for parent in Path(__file__).parents if (parent / ".git").exists())
        place = root.parent / "shared"
    if not place.is_dir():
        pytest.skip("the reference material is absent")
    return place
