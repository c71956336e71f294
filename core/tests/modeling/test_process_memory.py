"""What this process takes is less than what there is, and its peak is at least what was allocated meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock.modeling import process_memory
from anyblock.modeling.process_memory import peak_memory, reset_peak_memory, resident
from anyblock.modeling.system_memory import memory

MANY = 64 << 20


def test_this_process_takes_some_memory() -> None:
    total, _ = memory()
    assert 1 << 20 < resident() < total


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can count anew")
def test_the_peak_is_counted_from_the_reset_on() -> None:
    large = bytearray(b"x") * MANY
    assert (peak_memory() or 0) >= MANY
    del large
    assert reset_peak_memory()
    before = resident()
    peak = peak_memory()
    assert peak is not None
    assert before <= peak < before + MANY
    large = bytearray(b"x") * MANY
    peak = peak_memory()
    assert peak is not None
    assert peak >= before + len(large) * 3 // 4


def test_without_proc_only_the_largest_peak_of_all_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STATUS", "_CLEAR"):
        monkeypatch.setattr(process_memory, name, tmp_path / "absent" / "file")
    assert not reset_peak_memory()
    assert (peak_memory() or 0) > 1 << 20
