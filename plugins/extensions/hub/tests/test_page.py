"""The pages about the hub: every command and every piece of Python on them is run, in its order, in one folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from anyblock_tests.pages import blocks_of

RUN = """
import sys
from anyblock.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
"""
SMALL = ["data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=256", "data.evaluation_tokens=64"]


@pytest.mark.slow
def test_everything_on_the_pages_runs(hub: Any, server: Any, llama_dir: Path, tmp_path: Path, python: Any) -> None:
    hub.add("owner/teacher", server.tree_of(llama_dir))
    (tmp_path / "text.txt").write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    code = []
    for language, text in [*blocks_of("hub.md"), *blocks_of(Path(__file__).parents[1] / "README.md")]:
        if language == "python":
            code.append(text)
            continue
        for line in text.splitlines():
            prompt, command, *words = shlex.split(line)
            assert (prompt, command) == ("$", "anyblock")
            words += SMALL if words[0] == "compress" else []
            code.append(RUN.replace("sys.argv[1:]", repr(words)))
    # One process, since each takes seconds to import torch.
    done = python("-c", "\n".join(code), HF_TOKEN=server.TOKEN)
    assert done.returncode == 0, done.stderr
    assert hub.repositories.keys() == {"owner/teacher", "owner/child", "owner/child-transformers"}
    assert [repository.private for repository in hub.repositories.values()] == [False, True, False]
