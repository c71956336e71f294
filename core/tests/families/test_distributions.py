"""What holds for every adapter of the workspace: how long its code may be, and that its README says what it declares."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from anyblock.contract.capabilities import CAPABILITIES
from anyblock.errors import UnsupportedModelError
from anyblock.family import ModelFamily, get_family

PLUGINS = Path(__file__).parents[3] / "plugins" / "families"
MAX_LINES = {"dense": 60, "sparse": 150}


def script() -> ModuleType:
    """Return the script that writes the tables."""
    path = PLUGINS.parents[1] / "core" / "scripts" / "write_capability_tables.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = script()
ADAPTERS = [
    folder
    for folder in sorted(PLUGINS.iterdir())
    if (folder / "pyproject.toml").is_file() and (folder / "README.md").is_file() and TABLES.families(folder)
]


def installed(folder: Path) -> dict[str, ModelFamily]:
    """Return the distribution's families by name; skip where it is not installed."""
    try:
        return {name: get_family(name) for name in TABLES.families(folder)}
    except UnsupportedModelError:
        pytest.skip(f"{folder.name} is not installed")


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_a_family_takes_few_lines(folder: Path) -> None:
    """What many families need is in core's bases; blank lines do not count, docstrings do."""
    families = installed(folder)
    dense = all(type(family.descriptor).__mro__[1].__name__ == "DenseDescriptor" for family in families.values())
    limit = MAX_LINES["dense" if dense else "sparse"]
    lines = [
        line for file in folder.glob("src/**/*.py") for line in file.read_text("utf-8").splitlines() if line.strip()
    ]
    assert len(lines) <= limit * len(families)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_the_readme_says_how_to_install_and_what_is_declared(folder: Path) -> None:
    """Run `python core/scripts/write_capability_tables.py` after a change."""
    readme = (folder / "README.md").read_text("utf-8")
    assert re.search(rf"pip install anyblock anyblock-{folder.name}$", readme, re.MULTILINE)
    if TABLES.BEGIN not in readme:
        pytest.skip("its README has no table of capabilities")
    declared = {
        name: {key: (str(found.support), found.note) for key, found in family.capabilities().items()}
        for name, family in installed(folder).items()
    }
    assert all(states.keys() == CAPABILITIES.keys() for states in declared.values())
    assert TABLES.with_table(readme, declared) == readme
