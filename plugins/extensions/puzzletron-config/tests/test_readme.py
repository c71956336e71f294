"""The README is what the script prints, and names everything that the dialect knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from anyblock.config.registry import NameRegistry
from anyblock_puzzletron_config import aliases, tables
from anyblock_puzzletron_config.keys import GUIDE_KEYS

HERE = Path(__file__).parents[1]
PAGE = HERE / "README.md"
SCRIPT = HERE / "scripts" / "write_readme.py"


def test_the_page_is_up_to_date() -> None:
    printed = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, check=True).stdout.decode("utf-8")
    assert PAGE.read_text(encoding="utf-8") == printed, f"python {SCRIPT.name} > {PAGE.name}"


def test_every_name_of_the_guide_is_on_the_page() -> None:
    """Keys, constraints, objectives, labels, modes and class names that the reader knows; nothing is left to guess."""
    text = PAGE.read_text(encoding="utf-8")
    names = {
        *GUIDE_KEYS,
        *tables.CONSTRAINTS,
        *tables.OBJECTIVES,
        *tables.METHODS,
        *tables.REFUSED_MODES,
        *aliases.REFERENCE_FAMILIES,
        *aliases.REFERENCE_HOOKS,
        *aliases.REFERENCE_MIXINS,
    }
    names |= {mode for _, modes in tables.INIT_MODES.values() for mode in modes}
    assert sorted(name for name in names if f"`{name}`" not in text) == []
    assert all(f"`FAMILY{end}`" in text for end in aliases.REFERENCE_LAYER_DESCRIPTORS)
    # What a name stands for stands beside it.
    for key, entry in GUIDE_KEYS.items():
        if entry.ours:
            assert f"\n| `{key}` | `{entry.ours}` |" in text, key


def test_what_a_reference_name_stands_for_is_there(registry_of_core: NameRegistry) -> None:
    """Each hook and mixin that the page lists resolves to one of core, or is one that a family brings."""
    for name in aliases.REFERENCE_MIXINS:
        assert registry_of_core.mixin(f"modelopt.torch.puzzletron.pruning.kv_heads_pruning_mixin.{name}")
    for name, others in aliases.REFERENCE_HOOKS.items():
        found = next((hook for hook in (name, *others) if hook in registry_of_core.hooks), None)
        assert found, name
        assert registry_of_core.hook(f"modelopt.torch.prune.importance_hooks.{name}") == found


@pytest.fixture
def registry_of_core() -> NameRegistry:
    return NameRegistry.for_family(None)
