"""The README: its commands are run, in their order, in one folder, on the task that it shows."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from anyblock_tests.pages import blocks_of
from anyblock_tests.processes import run_python

README = Path(__file__).parents[1] / "README.md"
SCRIPT = """
import shlex, runpy, sys
for line in sys.stdin:
    words = shlex.split(line)
    while words[0] == "python":
        words = words[2:]
    sys.argv = words
    module = {"lm_eval": "lm_eval", "anyblock": "anyblock"}.get(words[0], words[0])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except SystemExit as stop:
        assert not stop.code, (line, stop.code)
"""


@pytest.mark.slow
def test_everything_on_the_page_runs(trained_dir: Path, trained_child: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_dir, tmp_path / "teacher")
    shutil.copytree(trained_child, tmp_path / "child")
    text = "\n".join(f"This is line {number} of a text." for number in range(90))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": text}) + "\n")
    blocks = blocks_of(README)
    ((_, task),) = [block for block in blocks if block[0] == "yaml"]
    (tmp_path / "task.yaml").write_text(task)
    lines = [
        line.removeprefix("$ ") for language, listed in blocks if language == "console" for line in listed.splitlines()
    ]
    assert [shlex.split(line)[0] for line in lines] == [
        "pip",
        "anyblock",
        "python",
        "anyblock",
        "lm_eval",
    ]
    # One process, since each takes seconds to import torch; the installation is there.
    shown = run_python(
        "-c", SCRIPT, folder=tmp_path, text="\n".join(line for line in lines if not line.startswith("pip"))
    )
    assert shown.count("own_text") == 3 + 1 + 1  # a row each in our table, one heading in each of the harness's
    assert shown.count("byte_perplexity") == 3
