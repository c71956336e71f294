"""A hook of mkdocs: the READMEs of all distributions and the reference become pages, and links between files lead to pages.

`mkdocs build --strict` in an environment with every distribution makes the site. Pages are written for GitHub and for an editor:
their links name files of the repository. Here a link to a page of the site is one to that page, and one to any other file of the
repository leads to a copy of it. A link to what does not exist is left as it is, and the strict build fails.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from reference_pages import pages as reference_pages

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "core" / "docs"
GROUPS: Final = {"Extensions": "plugins/extensions", "Families": "plugins/families"}
OTHERS: Final = {
    "The conformance suite": "conformance_tests/README.md",
    "Contributing": "CONTRIBUTING.md",
    "Security": "SECURITY.md",
    "Changelog": "CHANGELOG.md",
}
_LINK: Final = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s#]*)(#[^)\s]*)?\)")
_FENCE: Final = re.compile(r"^( *)(```+|~~~+)(\w*)(?: (.*))?$")


def pages_of_distributions() -> dict[str, dict[str, Path]]:
    """Return the README of every plugin, `{heading: {title: file}}`."""
    return {
        heading: {readme.parent.name: readme for readme in sorted((ROOT / folder).glob("*/README.md"))}
        for heading, folder in GROUPS.items()
    }


def places() -> dict[Path, str]:
    """Return where each file of the repository is in the site."""
    found = {path: path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*") if path.is_file()}
    for heading, readmes in pages_of_distributions().items():
        found |= {path: f"{heading.lower()}/{name}.md" for name, path in readmes.items()}
    found |= {
        ROOT / name: f"about/{Path(name).stem.lower()}.md" for name in OTHERS.values() if Path(name).name != "README.md"
    }
    found[ROOT / "conformance_tests" / "README.md"] = "about/conformance-suite.md"
    found[ROOT / "README.md"] = found[ROOT / "core" / "README.md"] = "index.md"
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add what is found to the navigation: the reference, every plugin, and pages of core/docs that it does not name yet."""
    assert config.nav is not None
    named = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    at = places()
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] += [{"Commands": "reference/commands.md"}, {"Hooks": "reference/hooks.md"}]
        if "How to" in entry:
            more = sorted(path.name for path in DOCS.glob("*.md") if path.name not in named)
            entry["How to"] += [{_title(DOCS / name): name} for name in more]
    for heading, readmes in pages_of_distributions().items():
        config.nav.append({heading: [{name: at[path]} for name, path in readmes.items()]})
    config.nav.append({"About": [{title: at[ROOT / name]} for title, name in OTHERS.items()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in core/docs."""
    for path, place in places().items():
        if DOCS not in path.parents and place != "index.md":
            files.append(File.generated(config, place, content=path.read_text(encoding="utf-8")))
    for place, text in reference_pages().items():
        files.append(File.generated(config, place, content=text))
    for place, path in linked_files().items():
        file = File.generated(config, place, content=path.read_text(encoding="utf-8"))
        file.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to files into links to pages, and fences with more than a language into what Python-Markdown reads."""
    source = {place: path for path, place in places().items() if place != "index.md"}
    path = source.get(page.file.src_uri, DOCS / page.file.src_uri)
    return "\n".join(rewritten(markdown, path, page.file.src_uri))


def rewritten(markdown: str, path: Path, place: str) -> list[str]:
    """Return the lines of a page as the site has them.

    Args:
        markdown: its text.
        path: the file that it comes from, from which its links lead.
        place: where it is in the site.
    """
    lines = []
    fence = ""
    for line in markdown.splitlines():
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark.group(2)
            if mark.group(4):
                lines += [f"{mark.group(1)}`{mark.group(4).removeprefix('file=')}`:", ""]
                line = "".join(mark.group(1, 2, 3))
        elif mark and mark.group(2) == fence and not mark.group(3):
            fence = ""
        elif not fence:
            line = _LINK.sub(lambda found: _link(found, path, place), line)
        lines.append(line)
    return lines


def linked_files() -> dict[str, Path]:
    """Return the files of the repository, other than pages, that pages link to, by their place in the site."""
    at = places()
    found = {}
    for path in [path for path in at if path.suffix == ".md"]:
        for _, target, _ in _LINK.findall(path.read_text(encoding="utf-8")):
            goal = _goal(path, target)
            if goal is not None and goal.is_file() and goal not in at and goal.suffix != ".png":
                found[_copy(goal)] = goal
    return found


def _link(found: re.Match[str], path: Path, place: str) -> str:
    """Return a link as the site has it."""
    text, target, anchor = found.group(1), found.group(2), found.group(3) or ""
    goal = _goal(path, target)
    if goal is None or not goal.exists():
        return found.group(0)
    at = places()
    if goal.is_dir() and goal / "README.md" in at:
        goal /= "README.md"
    if goal.is_dir():
        return text.strip("!")[1:-1]  # nothing of the site shows a folder
    if goal not in at and goal.suffix == ".png":
        return found.group(0)
    return f"{text}({os.path.relpath(at.get(goal, _copy(goal)), Path(place).parent)}{anchor})"


def _goal(path: Path, target: str) -> Path | None:
    """Return the file that a link names; None for one to a place of its own page or of another site."""
    if not target or re.match(r"[a-z]+:", target):
        return None
    return Path(os.path.normpath(path.parent / target))


def _copy(path: Path) -> str:
    return f"files/{path.relative_to(ROOT).as_posix()}.txt"


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
