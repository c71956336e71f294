"""Run what a page of the documentation shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from anyblock.cli import app
from typer.testing import CliRunner

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run every command and every piece of Python of a page of core/docs, in its order, in `folder` and in this process.

    Lines of a console block that do not begin with `$` are output, and are not compared. Returns the commands.
    """
    monkeypatch.chdir(folder)
    commands = []
    for language, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, page, "exec"), {"__name__": page})
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                program, *arguments = line.removeprefix("$ ").split()
                assert program == "anyblock", line
                done = CliRunner().invoke(app, arguments)
                assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
                commands.append(line)
    assert commands
    return commands
