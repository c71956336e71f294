"""Hostile and broken checkpoints: named changes to a good one, generated from a seed.

Each entry takes a folder that holds a fresh copy of a checkpoint and damages it.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mutation = Callable[[Path], object]
WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
HUGE = [-1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400, 1e308, 1.5, -0.0]
ODD = [None, True, "", "1", "\ud800", [], {}, [[]], {"a": 1}, "x" * 100_000, float("nan"), float("inf")]


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def edit_header(change: Callable[[dict[str, Any], random.Random], object], seed: int) -> Mutation:
    def mutate(folder: Path) -> None:
        header, body = split((folder / WEIGHTS).read_bytes())
        change(header, random.Random(seed))
        (folder / WEIGHTS).write_bytes(joined(json.dumps(header).encode(), body))

    return mutate


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Mutation:
    def mutate(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        change(data)
        (folder / name).write_text(json.dumps(data))

    return mutate


def write(name: str, content: bytes) -> Mutation:
    def mutate(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return mutate


def _field(field: str, value: Any) -> Callable[[dict[str, Any], random.Random], None]:
    def change(header: dict[str, Any], chance: random.Random) -> None:
        name = chance.choice([key for key in header if key != "__metadata__"])
        header[name][field] = value

    return change


def headers() -> Iterator[tuple[str, Mutation]]:
    for field in ("dtype", "shape", "data_offsets"):
        for number, value in enumerate([*HUGE, *ODD]):
            yield f"header {field} {number}", edit_header(_field(field, value), number)
    for number, value in enumerate([*HUGE, *ODD]):
        yield f"header size {number}", edit_header(_field("shape", [value, 96]), number)
        yield f"header offset {number}", edit_header(_field("data_offsets", [0, value]), number)
        yield f"header entry {number}", edit_header(lambda h, c, v=value: h.update(extra=v), number)
        yield f"header metadata {number}", edit_header(lambda h, c, v=value: h.update(__metadata__=v), number)
    for length in (0, 1, 7, 2**20, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1):

        def claim(folder: Path, length: int = length) -> None:
            data = (folder / WEIGHTS).read_bytes()
            (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + data[8:])

        yield f"header length {length}", claim
    for seed in range(40):

        def flip(folder: Path, seed: int = seed) -> None:
            data, chance = bytearray((folder / WEIGHTS).read_bytes()), random.Random(seed)
            size = 8 + struct.unpack("<Q", data[:8])[0]
            for _ in range(1 + seed % 5):
                data[chance.randrange(size)] = chance.randrange(256)
            (folder / WEIGHTS).write_bytes(data)

        def cut(folder: Path, seed: int = seed) -> None:
            os.truncate(folder / WEIGHTS, random.Random(seed).randrange((folder / WEIGHTS).stat().st_size))

        yield f"bytes flipped {seed}", flip
        yield f"file cut {seed}", cut
    for depth in (100, 10_000, 400_000):
        yield f"header depth {depth}", write(WEIGHTS, joined(b'{"a":' + b"[" * depth + b"]" * depth + b"}", b""))
    many = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}).encode()
    yield "header with 50,000 tensors", write(WEIGHTS, joined(many, b""))
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    yield "header with a key twice", write(WEIGHTS, joined(b"{" + entry + b"," + entry + b"}", b"\0"))
    yield "header overlaps", edit_header(_overlap, 0)
    yield "header leaves a gap", edit_header(_gap, 0)


def _entries(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [value for key, value in header.items() if key != "__metadata__"]


def _overlap(header: dict[str, Any], _: random.Random) -> None:
    first, second = _entries(header)[:2]
    second["data_offsets"], second["shape"] = first["data_offsets"], first["shape"]


def _gap(header: dict[str, Any], _: random.Random) -> None:
    for entry in _entries(header)[1:]:
        entry["data_offsets"] = [offset + 64 for offset in entry["data_offsets"]]


def indexes() -> Iterator[tuple[str, Mutation]]:
    def with_index(weight_map: Any) -> Mutation:
        return write(INDEX, json.dumps({"metadata": {}, "weight_map": weight_map}).encode())

    places = [
        "../x.safetensors",
        "/etc/passwd",
        "/etc/x.safetensors",
        "a/../../x.safetensors",
        "",
        ".",
        "..",
        "\0.safetensors",
    ]
    places += ["x" * 5000 + ".safetensors", "a/" * 500 + "x.safetensors", "\\\\host\\x.safetensors", "gone.safetensors"]
    places += ["model.bin", "/dev/zero", "/proc/self/mem", "~/x.safetensors", "file:///etc/x.safetensors", CONFIG]
    for number, value in enumerate([*places, *HUGE, *ODD]):
        yield f"index target {number}", with_index({"lm_head.weight": value})
        yield f"index map {number}", with_index(value)
    for kind in ("fifo", "device", "directory", "outside", "circle"):
        for name in (WEIGHTS, CONFIG, "tokenizer.json"):

            def replace(folder: Path, kind: str = kind, name: str = name) -> None:
                path = folder / name
                path.unlink()
                if kind == "fifo":
                    os.mkfifo(path)
                elif kind == "device":
                    path.symlink_to("/dev/zero")
                elif kind == "directory":
                    path.mkdir()
                elif kind == "outside":
                    path.symlink_to("/etc/passwd")
                else:
                    path.symlink_to(name)

            yield f"{kind} for {name}", replace
    yield "index depth", write(INDEX, b'{"weight_map":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001)
    yield "index key twice", write(INDEX, b'{"weight_map":{"a":"m.safetensors","a":"m.safetensors"}}')


def configs() -> Iterator[tuple[str, Mutation]]:
    keys = ["num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"]
    keys += [
        "vocab_size",
        "head_dim",
        "model_type",
        "rms_norm_eps",
        "dtype",
        "rope_parameters",
        "hidden_act",
        "block_configs",
    ]
    for key in keys:
        for number, value in enumerate([*HUGE, *ODD]):
            yield f"config {key} {number}", edit_json(CONFIG, lambda data, k=key, v=value: data.update({k: v}))
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}

    def remote(folder: Path) -> None:
        (folder / "evil.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w')\nclass Config: pass\n")
        edit_json(CONFIG, lambda data: data.update(auto_map=auto))(folder)

    def remote_type(folder: Path) -> None:
        remote(folder)
        edit_json(CONFIG, lambda data: data.update(model_type="evil"))(folder)

    yield "config auto_map", remote
    yield "config auto_map of an unknown type", remote_type
    yield "config depth", write(CONFIG, b'{"model_type":"llama","a":' + b"[" * 300_000 + b"]" * 300_000 + b"}")
    yield "config is empty", write(CONFIG, b"")
    yield "config is not an object", write(CONFIG, b"[1]")
    yield "config is not UTF-8", write(CONFIG, b'{"model_type":"\xff"}')
    yield "config is huge", write(CONFIG, b'{"model_type":"' + b"x" * 40_000_000 + b'"}')


def tokenizers() -> Iterator[tuple[str, Mutation]]:
    yield "tokenizer missing", lambda folder: (folder / "tokenizer.json").unlink()
    for number, content in enumerate(
        [b"", b"{}", b"[]", b"\xff", b"[" * 200_000, b'{"model":{}}', b'{"version":1e999}']
    ):
        yield f"tokenizer {number}", write("tokenizer.json", content)
        yield f"tokenizer config {number}", write("tokenizer_config.json", content)
    yield "tokenizer huge", write("tokenizer.json", b'{"a":"' + b"x" * 30_000_000 + b'"}')


def all_mutations() -> dict[str, Mutation]:
    """Every mutation by name."""
    found: dict[str, Mutation] = {}
    for name, mutation in (*headers(), *indexes(), *configs(), *tokenizers()):
        assert name not in found, name
        found[name] = mutation
    return found
