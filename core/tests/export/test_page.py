"""The page about exports: every command and every piece of Python on it is run, in its order, in one folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from anyblock import get_family
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.views import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.export import FORMATS
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_everything_on_the_page_runs(trained_dir, tmp_path):
    teacher = SubblockCheckpoint.open(trained_dir)
    removed = [Candidate(2, "ffn", NO_OP, 0, teacher.block_configs[2].with_ffn(no_op=True))]
    weights = CandidateWeights(teacher, get_family("llama"), load_hf_config(trained_dir), {})
    shutil.copytree(realize(teacher, removed, weights, tmp_path / "made"), tmp_path / "child")
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [language for language, _ in found] == ["console", "python", "python"]
    for language, text in found:
        if language == "python":
            commands = [[sys.executable, "-c", text]]
        else:
            lines = [line.removeprefix("$ ").split() for line in text.splitlines()]
            assert all(line[0] == "anyblock" for line in lines)
            commands = [[sys.executable, "-m", *line] for line in lines]
        for command in commands:
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_page_lists_every_format():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in FORMATS)
