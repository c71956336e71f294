"""Coverage-guided fuzzing of the readers with atheris: `python fuzz.py header|index [libFuzzer options] CORPUS`.

A reader either refuses its input with a `CheckpointError` or what it returns is sound. For a header, sound means that the
safetensors library, an implementation of its own, reads the same tensors from the file. Anything else ends the process with
libFuzzer's report and the input.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["anyblock.checkpoint.", "json"], enable_loader_override=False):
    from anyblock.checkpoint.header import read_header
    from anyblock.checkpoint.index import read_index
from anyblock.errors import CheckpointError
from safetensors import safe_open

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
WORDS = ["dtype", "shape", "data_offsets", "__metadata__", "F32", "BF16", "F4", "weight_map", "x.safetensors", "../"]
SEEDS = {
    "header": [
        b"\1\x04{}",
        b'\1\x04{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}',
        b'\1\x06{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2,1],"data_offsets":[4,6]}}',
        b"\0" + (2).to_bytes(8, "little") + b"{}",
        b"\2\3\0\0\0\1\1\2\2\0\1\0\0\1\1\1",
    ],
    "index": [
        b'{"metadata":{"total_size":4},"weight_map":{"a":"model.safetensors"}}',
        b'{"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}}',
    ],
}


def header(data: bytes) -> None:
    """The first byte chooses: a whole file; a header with the right length in front; or one that is built field by field."""
    file = FOLDER / "x.safetensors"
    choice, rest = data[0] % 3 if data else 0, data[1:]
    if choice == 0:
        file.write_bytes(rest)
    else:
        text, behind = (rest[1:], rest[0] if rest else 0) if choice == 1 else built(rest)
        file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(behind))
    try:
        found = read_header(file)
    except CheckpointError:
        return
    with safe_open(file, "np") as library:
        assert set(library.keys()) == set(found.tensors), data
    assert sum(entry.nbytes for entry in found.tensors.values()) < file.stat().st_size, data


def built(data: bytes) -> tuple[bytes, int]:
    """A header of up to four tensors that mostly follow one another, and how many bytes are to follow it."""
    give = atheris.FuzzedDataProvider(data)
    entries, position = {}, 0
    for number in range(give.ConsumeIntInRange(0, 4)):
        dtype, bits = give.PickValueInList([("F32", 32), ("BF16", 16), ("U8", 8), ("F4", 4), ("F8_E8M0", 8), ("X", 8)])
        shape = [give.ConsumeIntInRange(-1, 5) for _ in range(give.ConsumeIntInRange(0, 3))]
        end = position + max(0, math.prod(shape)) * bits // 8
        shift = give.PickValueInList([0, 0, 0, 0, 1, -1, 1 << 63])
        entries[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [position + shift, end + shift]}
        position = end
    if give.ConsumeBool():
        entries["__metadata__"] = {"format": give.ConsumeUnicode(8)}
    return json.dumps(entries).encode(), position + give.PickValueInList([0, 0, 0, 1])


def index(data: bytes) -> None:
    file = FOLDER / "model.safetensors.index.json"
    file.write_bytes(data)
    try:
        found = read_index(FOLDER)
    except CheckpointError:
        return
    assert found, data
    assert all(isinstance(k, str) and isinstance(v, str) and v.endswith(".safetensors") for k, v in found.items()), data


def main() -> None:
    name, *options, corpus = sys.argv[1:]
    for number, seed in enumerate(SEEDS[name]):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    words = Path(corpus).with_suffix(".words")
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    atheris.Setup([sys.argv[0], f"-dict={words}", *options, corpus], {"header": header, "index": index}[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
