"""The spool gives back what it was given, in memory up to its bound and from files beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock.modeling.spool import Spool
from hypothesis import given
from hypothesis import strategies as st

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]


@given(
    memory=st.integers(0, 400),
    shapes=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=6),
    dtype=st.sampled_from(DTYPES),
)
def test_what_comes_out_is_what_went_in(
    tmp_path_factory: pytest.TempPathFactory, memory: int, shapes: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, memory)
    given = [torch.randn(shape).to(dtype) for shape in shapes]
    kept = spool.collect(given)
    assert len(kept) == len(given)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(kept, given, strict=True))
    files = [path.stat().st_size for path in folder.iterdir()]
    total = sum(tensor.numel() * tensor.element_size() for tensor in given)
    assert sum(files) >= total - memory
    assert total > memory or not files


def test_room_is_given_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 80)
    first = spool.collect([torch.zeros(10), torch.ones(10), torch.full((10,), 2.0)])
    assert len(list((tmp_path / "spool").iterdir())) == 1
    first[0] = torch.full((10,), 3.0)
    assert len(list((tmp_path / "spool").iterdir())) == 1, "a replacement takes the room of what it replaces"
    assert [float(tensor[0]) for tensor in first] == [3.0, 1.0, 2.0]
    held = first[2]
    del first
    assert not list((tmp_path / "spool").iterdir())
    assert held.tolist() == [2.0] * 10, "whoever holds a tensor keeps it"
    second = spool.collect([torch.zeros(10), torch.zeros(10)])
    assert not list((tmp_path / "spool").iterdir()), "the room of dropped tensors is used again"
    assert len(second) == 2


def test_a_tensor_from_a_file_can_be_written_to_without_changing_the_file(tmp_path: Path) -> None:
    kept = Spool(tmp_path / "spool").collect([torch.zeros(4, 2)])
    kept[0].add_(1)
    assert torch.equal(kept[0], torch.zeros(4, 2))


def test_views_do_not_hold_on_to_their_base() -> None:
    base = torch.zeros(1000, 8)
    kept = Spool().collect([base[3:4]])
    assert kept[0].untyped_storage().nbytes() == 32
