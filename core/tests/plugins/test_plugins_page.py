"""The page about plugins, run: its code, and the names it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from anyblock.contract.capabilities import Support
from anyblock.contract.hookspecs import EXTENSIONS_GROUP, FAMILIES_GROUP
from anyblock.descriptors import DenseDescriptor
from anyblock.family import ModelFamily
from anyblock.plugins import PluginRecord, PluginStatus, settings

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")


def run(word: str) -> dict[str, Any]:
    """Run the one block of code that has this word in it."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if word in code]
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, str(PAGE), "exec"), namespace)
    return namespace


def test_the_registry_example_runs(monkeypatch, capsys):
    for name in ("ANYBLOCK_PLUGINS", "ANYBLOCK_DISABLE_PLUGINS", "ANYBLOCK_PREFER", "ANYBLOCK_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    run("PluginRegistry.discover")
    assert capsys.readouterr().out.endswith("model.layers.3\n")


@pytest.mark.parametrize(("model_type", "concerned"), [("gemma3", True), ("llama", False)])
def test_the_wrapping_example_does_what_it_says(model_type, concerned):
    extension = run("CarefulExtension")["CarefulExtension"]
    descriptor = type("D", (DenseDescriptor,), {"decoder_layer": "torch.nn.Identity"})
    family = ModelFamily.from_descriptor(descriptor, model_type=model_type, extensions=[extension])
    assert (family.capability("attention_no_op").support is Support.PARTIAL) == concerned
    assert ("query_groups" in family.pruning_mixins()) != concerned
    assert "kv_heads" in family.pruning_mixins()


def test_the_page_names_every_status_setting_group_and_field():
    words = [f"`{status}`" for status in PluginStatus]
    words += [f"`{group}`" for group in (FAMILIES_GROUP, EXTENSIONS_GROUP)]
    words += [settings.ALLOW_VARIABLE, settings.DENY_VARIABLE, settings.PREFER_VARIABLE, settings.STRICT_VARIABLE]
    words += [f"`{key}`" for key in PluginRecord("d", "1", FAMILIES_GROUP, {}).to_dict()]
    assert [word for word in words if word not in TEXT] == []
