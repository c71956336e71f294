"""Python in a fresh process, where nothing is imported yet and no hub can be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_python(*arguments: str | Path, folder: Path, text: str = "") -> str:
    """Run Python in `folder`, with a Hugging Face cache of its own there; return what it prints.

    Args:
        arguments: for the interpreter, for instance `-c` and code; the rest goes to `sys.argv`.
        folder: an existing directory.
        text: for its standard input.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        input=text,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
