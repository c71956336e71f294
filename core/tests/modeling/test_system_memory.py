"""Available memory is the least that the host and every control group around the process leave."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from anyblock.modeling import system_memory
from anyblock.modeling.system_memory import memory


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with 16 GB, half of it free, and the process in the group /a/b."""
    (tmp_path / "membership").write_text("3:cpu:/elsewhere\n0::/a/b\n")
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    left = SimpleNamespace(total=16_000_000 * 1024, available=8_000_000 * 1024)
    monkeypatch.setattr(system_memory.psutil, "virtual_memory", lambda: left)
    monkeypatch.setattr(system_memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(system_memory, "_CGROUPS", tmp_path / "groups")
    return tmp_path / "groups"


def bound(folder: Path, limit: str, usage: int) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")


def test_groups_without_a_limit_leave_what_the_host_has(host: Path) -> None:
    assert memory() == (16_000_000 * 1024, 8_000_000 * 1024)
    bound(host, "max", 100)
    assert memory() == (16_000_000 * 1024, 8_000_000 * 1024)


@pytest.mark.parametrize("inside", ["", "a", "a/b"])
def test_a_limit_counts_wherever_it_is(host: Path, inside: str) -> None:
    bound(host / inside, "1000", 100)
    assert memory() == (1000, 900)
    (host / inside / "memory.stat").write_text("anon 20\ninactive_file 30\n")
    assert memory() == (1000, 930)
    bound(host / inside, "1000", 2000)
    assert memory() == (1000, 0)


def test_the_tightest_of_nested_limits_counts(host: Path) -> None:
    bound(host / "a", "5000", 100)
    bound(host / "a" / "b", "3000", 2500)
    assert memory() == (3000, 500)


def test_the_first_version_of_control_groups_is_understood(host: Path, tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("4:memory:/x\n")
    folder = host / "memory" / "x"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    (folder / "memory.usage_in_bytes").write_text("400\n")
    assert memory() == (1000, 600)


def test_without_control_groups_the_system_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MEMBERSHIP", "_CGROUPS"):
        monkeypatch.setattr(system_memory, name, tmp_path / "absent")
    total, available = memory()
    assert 1 << 28 < available <= total
