"""Run what a page of the documentation shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from anyblock.cli import app
from typer.testing import CliRunner

DOCS = Path(__file__).parents[3] / "docs"
_BLOCK = re.compile(r"^```(console|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: str | Path) -> list[tuple[str, str]]:
    """Return the language and the text of every console, Python and YAML block of a page of core/docs, or of any file."""
    return _BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def run_page(
    page: str | Path, folder: Path, monkeypatch: pytest.MonkeyPatch, meant: Mapping[str, str] | None = None
) -> list[str]:
    """Run every command and every piece of Python of a page of core/docs or any file, in its order, in `folder`, in this process.

    Lines of a console block that do not begin with `$` are output, and are not compared. Returns the commands.

    Args:
        page: its name, or the file.
        folder: where it is run.
        monkeypatch: of the test.
        meant: what stands for an argument here, perhaps several words.
    """
    monkeypatch.chdir(folder)
    commands = []
    for language, text in blocks_of(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), {"__name__": str(page)})
            continue
        assert language == "console", f"{page} shows {language}, which cannot be run"
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                program, *shown = line.removeprefix("$ ").split()
                arguments = [word for part in shown for word in (meant or {}).get(part, part).split()]
                assert program == "anyblock", line
                done = CliRunner().invoke(app, arguments)
                assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
                commands.append(line)
    assert commands
    return commands
