"""What the distributions promise to one another in their metadata."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[3]
FOLDERS = [
    folder
    for folder in (ROOT / "core", ROOT / "conformance_tests", *sorted((ROOT / "plugins").glob("*/*")))
    if (folder / "pyproject.toml").is_file()
]
PLUGINS = [folder for folder in FOLDERS if folder.parent.parent.name == "plugins"]


def project(folder: Path) -> dict[str, Any]:
    """Return the `[project]` table of a distribution."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements(folder: Path) -> dict[str, Requirement]:
    """Return the runtime requirements of a distribution by name."""
    parsed = [Requirement(text) for text in project(folder)["dependencies"]]
    return {requirement.name: requirement for requirement in parsed}


def test_versions_agree() -> None:
    """The workspace is released in lock step, and core says the same as its metadata."""
    versions = {folder.name: project(folder)["version"] for folder in FOLDERS}
    assert len(set(versions.values())) == 1, versions
    source = (ROOT / "core" / "src" / "anyblock" / "version.py").read_text(encoding="utf-8")
    assert re.search(r'^VERSION: Final = "(.+)"$', source, re.MULTILINE).group(1) == versions["core"]


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: folder.name)
def test_core_is_required_as_a_range(folder: Path) -> None:
    """A plugin takes every core up to the next major version, so that core can be released without it."""
    specifier = requirements(folder)["anyblock"].specifier
    current = Version(project(ROOT / "core")["version"])
    assert {part.operator for part in specifier} == {">=", "<"}
    assert current in specifier
    assert Version(f"{current.major + 1}.0") not in specifier


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_the_suite_is_no_runtime_requirement(folder: Path) -> None:
    """Users of a family do not install the conformance suite."""
    assert "anyblock-conformance" not in requirements(folder)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_registers_itself(folder: Path) -> None:
    """Each distribution has an entry point in its own package, which has its name."""
    table = project(folder)
    (name,) = (path.name for path in (folder / "src").iterdir() if (path / "__init__.py").is_file())
    groups = table["entry-points"]
    entries = [
        target
        for group in ("anyblock.families", "anyblock.extensions", "anyblock.commands")
        for target in groups.get(group, {}).values()
    ]
    assert table["name"] == name.replace("_", "-")
    assert entries
    assert all(target.startswith((f"{name}:", f"{name}.")) for target in entries)


def test_no_model_type_is_served_twice() -> None:
    """Two adapters for one `model_type` would be a conflict for whoever installs both."""
    served = [family for folder in PLUGINS for family in project(folder)["entry-points"].get("anyblock.families", {})]
    assert len(served) == len(set(served))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_types_are_published(folder: Path) -> None:
    """Every package carries the `py.typed` marker, so that users' type checkers read its annotations."""
    assert list((folder / "src").glob("*/py.typed"))
