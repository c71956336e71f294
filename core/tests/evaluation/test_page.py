"""The page about evaluation: its commands are run, in their order, in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from anyblock_tests.pages import run_page


def test_everything_on_the_page_runs(
    trained_dir: Path, trained_child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained_dir, tmp_path / "teacher")
    shutil.copytree(trained_child, tmp_path / "child")
    (tmp_path / "text.txt").write_text("\n".join(f"This is line {number} of a text." for number in range(90)))
    assert len(run_page("evaluation.md", tmp_path, monkeypatch)) == 2
