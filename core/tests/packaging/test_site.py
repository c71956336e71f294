"""The documentation site: every page is in it, the reference is whole, links lead somewhere, figures have a source."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anyblock.cli import app
from anyblock.contract.hookspecs import FamilySpec

ROOT = Path(__file__).parents[3]
SCRIPTS, DOCS = ROOT / "core" / "scripts", ROOT / "core" / "docs"
SITE = importlib.util.find_spec("mkdocs") is not None
WITH_MKDOCS = pytest.mark.skipif(not SITE, reason="mkdocs is not installed: nox -s docs builds the site")


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_with_its_help() -> None:
    page = script("reference_pages").commands_page()
    own = {command.name or command.callback.__name__ for command in app.registered_commands}
    headings = set(re.findall(r"^## anyblock ([a-z-]+)$", page, re.MULTILINE))
    assert headings >= {*own, "bench", "report", "watch"}
    for name in own:
        assert "Usage: anyblock" in page.partition(f"## anyblock {name}\n")[2][:400], name
    assert "\x1b" not in page
    assert "--budget" in page


def test_the_reference_has_every_hook() -> None:
    page = script("reference_pages").hooks_page()
    names = [name for name in vars(FamilySpec) if not name.startswith("_")]
    assert len(names) > 20
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == names
    assert "(self" not in page


def test_every_link_of_every_page_leads_somewhere() -> None:
    """Also where mkdocs is not installed; anchors are checked by the strict build."""
    pages = [
        *DOCS.glob("*.md"),
        *(ROOT / "plugins").glob("*/*/README.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
    ]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target)
    ]
    assert len(links) > 50
    gone = [(str(page.relative_to(ROOT)), link) for page, link in links if not (page.parent / link).exists()]
    assert gone == []


def test_figures_on_choosing_come_from_the_page_that_is_named() -> None:
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        figures = re.findall(r"\d+\.\d+|\d\d[\d,.]+", part)
        sources = [DOCS / name for name in re.findall(r"\]\(([^)\s#]+\.md)\)", part)]
        known = set(re.findall(r"[\d.,]*\d", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
        assert [figure for figure in figures if figure.rstrip(".,") not in known | {"0.8"}] == [], part.partition("\n")[
            0
        ]


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})


@WITH_MKDOCS
@pytest.mark.slow
def test_the_site_builds_strictly_and_has_every_page(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for page in DOCS.glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file(), page.name
    for readme in (ROOT / "plugins").glob("*/*/README.md"):
        assert (site / readme.parent.parent.name / f"{readme.parent.name}.html").is_file(), readme
    start = (site / "index.html").read_text(encoding="utf-8")
    assert "overview.svg" in start
    assert not re.findall(r'(?:src|href)="https?://(?!www\.mkdocs\.org|readthedocs\.org|github\.com)', start)
    assert "```" not in re.sub(r"<code.*?</code>", "", (site / "write-an-adapter.html").read_text(encoding="utf-8"))


@WITH_MKDOCS
@pytest.mark.slow
@pytest.mark.parametrize("link", ["[gone](gone.md)", "[gone](configuration.md#no-such-heading)"])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Start\n\n{link}\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = settings[settings.index("validation:") : settings.index("nav:\n")]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\ndocs_dir: docs\n{validation}")
    (docs / "configuration.md").write_text("# Configuration\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "gone.md" in done.stderr or "no-such-heading" in done.stderr
