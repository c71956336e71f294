"""What the README says is so: the table of families, the commands, the files it points to."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from anyblock.cli import app

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_families_is_current() -> None:
    """Run `python core/scripts/write_family_table.py` after adding a family."""
    spec = importlib.util.spec_from_file_location("table", ROOT / "core" / "scripts" / "write_family_table.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.with_table(README) == README


def test_every_command_it_names_exists() -> None:
    """A command in the README can be typed, and every command is named there."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands} | {
        "bench",
        "conformance",
        "new-family",
        "push",
        "report",
        *("generate", "init", "schema", "watch"),
    }
    assert set(re.findall(r"`(?:\$ )?anyblock ([a-z]+(?:-[a-z]+)*)", README)) == known


def test_every_link_leads_somewhere() -> None:
    """Relative links point at files of the repository."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
