"""Copying byte ranges: every way gives the same bytes, and a source that changes is noticed."""

from __future__ import annotations

import errno
import itertools
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyblock.checkpoint import transfer
from anyblock.checkpoint.header import Stamp
from anyblock.checkpoint.transfer import ByteRange, Copier, kernel_steps, merged
from anyblock.errors import CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st

CONTENT = random.Random(1).randbytes(3 * transfer.STRIDE + 1234)
STEPS: dict[str, Any] = {
    "copy_file_range": (transfer._copy_file_range,),
    "sendfile": (transfer._sendfile,),
    "read and write": (),
}
positions = st.one_of(st.integers(0, len(CONTENT)), st.sampled_from(range(0, len(CONTENT), transfer.STRIDE)))


def copied(ranges: list[tuple[int, int]], position: int, steps: Any = None) -> tuple[bytes, int, list[int]]:
    """Copy ranges of a file to `position` of another; return its content, the end, and the reported progress."""
    told: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.write_bytes(CONTENT)
        with target.open("wb") as stream, Copier({}, told.append, steps=steps) as copier:
            end = copier.copy([ByteRange(source, start, stop) for start, stop in ranges], stream.fileno(), position)
        return target.read_bytes(), end, told


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(cuts=st.lists(st.tuples(positions, positions).map(sorted).map(tuple), max_size=5), position=positions)
def test_every_way_copies_the_same_bytes(steps: Any, cuts: list[tuple[int, int]], position: int) -> None:
    content, end, told = copied(cuts, position, steps)
    expected = b"".join(CONTENT[start:stop] for start, stop in cuts)
    assert content[position:] == expected
    assert content[:position] == bytes(min(position, len(content)))
    assert end == position + len(expected)
    assert sum(told) == len(expected)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)).filter(lambda r: r[1] <= r[2])))
@settings(deadline=None, derandomize=True)
def test_merging_keeps_the_bytes_in_order(parts: list[tuple[str, int, int]]) -> None:
    ranges = [ByteRange(Path(name), start, end) for name, start, end in parts]
    joined = list(merged(ranges))
    assert [(r.source, i) for r in joined for i in range(r.start, r.end)] == [
        (r.source, i) for r in ranges for i in range(r.start, r.end)
    ]
    for left, right in itertools.pairwise(joined):
        assert (left.source, left.end) != (right.source, right.start)
    assert all(r.start < r.end for r in joined)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
def test_a_way_that_is_refused_is_tried_once(number: int) -> None:
    calls: list[str] = []

    def refuses(*_: int) -> int:
        calls.append("refused")
        raise OSError(number, os.strerror(number))

    def works(*arguments: int) -> int:
        calls.append("worked")
        return transfer._sendfile(*arguments)

    ranges = [(0, 2 * transfer.STRIDE), (transfer.STRIDE, 2 * transfer.STRIDE)]
    assert copied(ranges, 0, (refuses, works))[0] == b"".join(CONTENT[a:b] for a, b in ranges)
    assert calls == ["refused", "worked", "worked"]


def test_a_way_that_copies_nothing_is_left() -> None:
    assert copied([(0, len(CONTENT))], 0, (lambda *_: 0,))[0] == CONTENT


def test_other_failures_are_raised() -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        copied([(0, transfer.STRIDE)], 0, (full,))


def test_short_steps_are_continued() -> None:
    def slowly(source: int, target: int, start: int, position: int, length: int) -> int:
        return transfer._sendfile(source, target, start, position, min(length, 1000))

    content, _, told = copied([(0, len(CONTENT))], 0, (slowly,))
    assert content == CONTENT
    assert told[:2] == [1000, transfer.STRIDE - 1000]


def test_this_platform_has_kernel_copies() -> None:
    assert [step.__name__ for step in kernel_steps()] == [
        f"_{name}" for name in ("copy_file_range", "sendfile") if hasattr(os, name)
    ]


def shrink(source: Path) -> None:
    os.truncate(source, 100)


def rewrite(source: Path) -> None:
    source.write_bytes(CONTENT[::-1])
    os.utime(source, ns=(0, 12345))


@pytest.mark.parametrize("change", [shrink, rewrite])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_source_that_changes_meanwhile(tmp_path: Path, change: Callable[[Path], None], steps: Any) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def copy_twice() -> None:
        with (tmp_path / "target").open("wb") as stream, Copier({}, lambda _: None, steps=steps) as copier:
            copier.copy([ByteRange(source, 0, 50)], stream.fileno(), 0)
            change(source)
            copier.copy([ByteRange(source, 0, len(CONTENT))], stream.fileno(), 0)

    with pytest.raises(CheckpointError) as raised:
        copy_twice()
    assert str(source) in str(raised.value)
    assert "became shorter" in str(raised.value) or "was changed" in str(raised.value)


def test_a_source_that_changed_since_it_was_checked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    stamp = Stamp.of(source.stat())
    rewrite(source)
    with (tmp_path / "target").open("wb") as stream, pytest.raises(CheckpointError, match="was changed"):  # noqa: SIM117
        with Copier({source: stamp}, lambda _: None) as copier:
            copier.copy([ByteRange(source, 0, 50)], stream.fileno(), 0)


def test_an_error_of_the_block_is_not_hidden(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)

    def fail() -> None:
        with (tmp_path / "target").open("wb") as stream, Copier({}, lambda _: None) as copier:
            copier.copy([ByteRange(source, 0, 50)], stream.fileno(), 0)
            shrink(source)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
