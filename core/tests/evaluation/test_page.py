"""The page about evaluation: its commands are run, in their order, in one folder, on the task that it shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
BLOCK = re.compile(r"^```(console|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
    pytest.importorskip("lm_eval")
    shutil.copytree(trained_dir, tmp_path / "teacher")
    shutil.copytree(trained_child, tmp_path / "child")
    text = "\n".join(f"This is line {number} of a text." for number in range(90))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": text}) + "\n")
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    ((_, task),) = [block for block in blocks if block[0] == "yaml"]
    (tmp_path / "task.yaml").write_text(task)
    lines = [
        line.removeprefix("$ ") for language, shown in blocks if language == "console" for line in shown.splitlines()
    ]
    assert [shlex.split(line)[0] for line in lines] == [
        "anyblock",
        "anyblock",
        "pip",
        "anyblock",
        "python",
        "anyblock",
        "lm_eval",
    ]
    # One process, since each takes seconds to import torch; the installation is there.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(line for line in lines if not line.startswith("pip")),
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tokens without overlap" in done.stdout
    assert '"stride": 64' in done.stdout
    assert done.stdout.count("own_text") == 3 + 1 + 1  # a row each in our table, one heading in each of the harness's
    assert done.stdout.count("byte_perplexity") == 3
