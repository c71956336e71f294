"""A conversion that is killed leaves nothing that looks finished, and the next one cleans up and succeeds."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anyblock import convert_model

POINTS = {
    "before the first byte": "safetensors_writer.write_all",
    "while a group is copied": "transfer.Copier.copy",
    "between two groups": "writer.SubblockWriter._fill",
    "before the index": "writer.SubblockWriter.finish",
    "while files go to the disk": "sync.sync",
    "before the rename": "atomic._install",
    "between the renames": "atomic.Path.rename",
    "before the old output is removed": "atomic.shutil.rmtree",
}
CODE = """
import importlib, os, signal, sys
source, out, point, nth = sys.argv[1:]
module, *path = point.split(".")
holder = importlib.import_module(f"anyblock.checkpoint.{module}")
for name in path[:-1]:
    holder = getattr(holder, name)
original, left = getattr(holder, path[-1]), int(nth)
def deadly(*arguments, **keywords):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **keywords)
setattr(holder, path[-1], deadly)
from anyblock import convert_model
convert_model(source, out, overwrite=True)
"""


def killed_at(source: Path, out: Path, point: str, nth: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(out), point, str(nth)], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_killed(sharded: Path, tmp_path: Path, tools: Any, point: str, nth: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    # for points that are passed only once the second kill is that of a second run
    for attempt in range(nth):
        once = point in {"writer.SubblockWriter.finish", "atomic._install", "atomic.shutil.rmtree"}
        killed_at(sharded, out, point, 1 if once else attempt + 1)
    present = {path.name for path in out.iterdir()} if out.exists() else set()
    finished = {"config.json", "model.safetensors.index.json", "subblocks_safetensors"}
    assert present in ({"mine.txt"}, finished, set())
    if not present:
        kept = [path for path in tmp_path.glob(".out.old-*") if (path / "mine.txt").exists()]
        assert len(kept) == 1
    if present == finished:
        assert tools.all_bytes(out) == tools.all_bytes(sharded)
    convert_model(sharded, out, overwrite=True)
    assert tools.all_bytes(out) == tools.all_bytes(sharded)
    assert {path.name for path in out.iterdir()} == finished
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sharded"]


def test_without_an_old_output(sharded: Path, tmp_path: Path, tools: Any) -> None:
    out = tmp_path / "out"
    killed_at(sharded, out, "writer.SubblockWriter.finish", 1)
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.tmp-*"))) == 1
    convert_model(sharded, out)
    assert tools.all_bytes(out) == tools.all_bytes(sharded)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sharded"]
