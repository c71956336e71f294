"""What holds the workspace together: who imports whom, what an import costs, and how large a module may be.

The layers inside core are contracts in the root `pyproject.toml` (`nox -s contracts`); here is what those cannot say.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [
    folder
    for folder in (ROOT / "core", ROOT / "conformance_tests", *sorted((ROOT / "plugins").glob("*/*")))
    if (folder / "pyproject.toml").is_file()
]
PLUGINS = [folder for folder in FOLDERS if folder.parent.parent.name == "plugins"]
MODULES = sorted((ROOT / "core" / "src").rglob("*.py"))
MAX_LINES = 400
_ARCHITECTURE = re.compile(r"transformers\.models(?!\.auto\b)")


def package(folder: Path) -> str:
    """Return the import name of a distribution: the one folder in its `src`."""
    (name,) = (path.name for path in (folder / "src").iterdir() if (path / "__init__.py").is_file())
    return name


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_distributions_import_only_core(folder: Path) -> None:
    """The arrow between distributions has one direction: core imports none of the others, and these only core."""
    others = {package(other) for other in FOLDERS} - {package(folder), "anyblock"}
    modules = sorted((folder / "src").rglob("*.py"))
    found = [(str(path.relative_to(ROOT)), name) for path in modules for name in imported(path)]
    assert modules
    assert not [(path, name) for path, name in found if name.partition(".")[0] in others]


PUBLIC = ("anyblock.contract", "anyblock.descriptors", "anyblock.errors")


def outside_the_public_surface(path: Path) -> list[str]:
    """Return the modules of core that a plugin's file imports beyond the three that are public."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    given = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return [
        name
        for name in (*plain, *given)
        if name.partition(".")[0] == "anyblock" and not any(name == own or name.startswith(f"{own}.") for own in PUBLIC)
    ]


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_the_public_surface_alone(folder: Path) -> None:
    """Adapters and extensions stand on what semantic versioning covers, so that core may change behind it.

    `new-family` builds, traces and prunes models with core's own tools, and follows core version by version.
    """
    if folder.name == "new-family":
        pytest.skip("follows core version by version")
    found = {str(path.relative_to(ROOT)): outside_the_public_surface(path) for path in (folder / "src").rglob("*.py")}
    assert found
    assert {path: names for path, names in found.items() if names} == {}


def test_core_imports_no_architecture() -> None:
    """Core works through the contract: no file of it imports a transformers architecture, not even in a function."""
    names = {str(path.relative_to(ROOT)): set(imported(path)) for path in MODULES}
    assert len(names) > 50
    assert not [(path, name) for path in names for name in names[path] if _ARCHITECTURE.match(name)]


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_nothing_heavy_at_the_top(folder: Path) -> None:
    """Loading an adapter must not load torch or transformers: `anyblock families --load` imports all of them."""
    if importlib.util.find_spec(package(folder)) is None:
        pytest.skip(f"{package(folder)} is not installed here")
    code = f"import sys, {package(folder)}; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compress", "--help"], ["families", "--json"], ["--version"]], ids=" ".join
)
def test_cheap_commands_load_nothing_heavy(arguments: list[str]) -> None:
    """Help, version and the list of plugins answer without torch, transformers, or a plugin."""
    code = f"""
import json, sys
from anyblock.cli import main
try:
    main({arguments!r})
finally:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(answer.stderr))
    families = {package(folder) for folder in PLUGINS}
    assert answer.stdout
    assert not loaded & ({"torch", "transformers", "numpy", "anyblock_conformance"} | families)


def test_importing_anyblock_loads_nothing_heavy() -> None:
    """`import anyblock` costs next to nothing; its public names are loaded on first use."""
    heavy = {"torch", "transformers", "numpy", "pydantic", "typer"}
    code = f"import sys, anyblock; print(sorted(set(sys.modules) & {heavy!r}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_modules_stay_small() -> None:
    """No module of core is longer than 400 lines."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MAX_LINES} == {}
