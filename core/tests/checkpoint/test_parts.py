"""Writing safetensors files from ranges and from tensors: the library reads back what went in."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint import read_header
from anyblock.checkpoint.dtypes import BITS, safetensors_dtype, torch_dtype
from anyblock.checkpoint.safetensors_writer import InMemory, Stored, write_safetensors
from anyblock.checkpoint.transfer import STRIDE, Copier
from anyblock.errors import CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import load_file, save_file

KINDS = ["F32", "BF16", "U8", "I64", "F64", "F16"]
spec = st.dictionaries(
    st.text("abcdé.", min_size=1, max_size=6),
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, derandomize=True)
@given(spec=spec, order=st.randoms(use_true_random=False))
def test_ranges_and_tensors_mix(tools: Any, spec: Any, order: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.write_bytes(tools.tensor_file(spec))
        given_tensors = load_file(source)
        parts: dict[str, Any] = {}
        for name, entry in order.sample(list(read_header(source).tensors.items()), k=len(spec)):
            stored = order.random() < 0.5
            parts[name] = Stored(source, entry) if stored else InMemory(given_tensors[name])
        with Copier({}, lambda _: None) as copier:
            names = write_safetensors(target, parts, copier)
        assert sorted(names) == sorted(spec)
        content = target.read_bytes()
        expected = {n: (t["dtype"], t["shape"], t["data"]) for n, t in deserialize(source.read_bytes())}
        assert {n: (t["dtype"], t["shape"], t["data"]) for n, t in deserialize(content)} == expected
        header = read_header(target)
        assert header.metadata == {"format": "pt"}
        assert (int.from_bytes(content[:8], "little") + 8) % 8 == 0
        assert all(entry.start % (BITS[entry.dtype] // 8) == 0 for entry in header.tensors.values())


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "slice", "step", "scalar", "empty", "expanded", "grad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.float8_e4m3fn, torch.int64])
def test_every_layout_of_a_tensor(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    base = torch.randn(6, 4).to(dtype)
    if layout == "grad":
        base = torch.randn(6, 4, requires_grad=True)
    tensor = {
        "contiguous": base,
        "transposed": base.T,
        "slice": base[2:5, 1:3],
        "step": base[::2],
        "scalar": base[0, 0],
        "empty": base[:0],
        "expanded": base[:, :1].expand(6, 3),
        "grad": base,
    }[layout]
    with Copier({}, lambda _: None) as copier:
        write_safetensors(tmp_path / "out", {"a": InMemory(tensor)}, copier)
    loaded = load_file(tmp_path / "out")["a"]
    assert loaded.dtype == tensor.dtype
    assert loaded.shape == tensor.shape
    assert torch.equal(loaded.reshape(-1).view(torch.uint8), tensor.detach().contiguous().reshape(-1).view(torch.uint8))


def test_types_are_those_of_the_library(tmp_path: Path) -> None:
    for name in BITS:
        if name in {"F4", "F6_E2M3", "F6_E3M2"}:
            with pytest.raises(CheckpointError, match=name):
                torch_dtype(name)
            continue
        dtype = torch_dtype(name)
        assert safetensors_dtype(dtype) == name
        assert dtype.itemsize * 8 == BITS[name]
        save_file({"a": torch.zeros(2, dtype=dtype)}, tmp_path / "x")
        assert read_header(tmp_path / "x").tensors["a"].dtype == name
    with pytest.raises(CheckpointError, match="complex128"):
        safetensors_dtype(torch.complex128)


def test_large_runs_lie_on_strides_as_in_their_source(tmp_path: Path) -> None:
    weights = {"a": torch.zeros(5, dtype=torch.uint8), "b": torch.randn(4096, 1024), "c": torch.randn(512)}
    save_file(weights, tmp_path / "source")
    entries = read_header(tmp_path / "source").tensors
    calls: list[tuple[int, int, int]] = []

    def step(source: int, target: int, start: int, position: int, length: int) -> int:
        from anyblock.checkpoint.transfer import kernel_steps

        calls.append((start, position, length))
        return kernel_steps()[0](source, target, start, position, length)

    with Copier({}, lambda _: None, steps=(step,)) as copier:
        parts = {name: Stored(tmp_path / "source", entries[name]) for name in ("b", "c")}
        write_safetensors(tmp_path / "target", parts, copier)
    assert sum(length for _, _, length in calls) >= (16 << 20) - STRIDE
    assert all(start % STRIDE == position % STRIDE == length % STRIDE == 0 for start, position, length in calls)
    loaded = load_file(tmp_path / "target")
    assert all(torch.equal(loaded[name], weights[name]) for name in ("b", "c"))


def test_an_existing_file_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"x")
    with Copier({}, lambda _: None) as copier, pytest.raises(FileExistsError):
        write_safetensors(tmp_path / "out", {"a": InMemory(torch.zeros(1))}, copier)
    assert (tmp_path / "out").read_bytes() == b"x"
