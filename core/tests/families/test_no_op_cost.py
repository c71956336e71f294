"""What a removed half costs in every family: no operation at all without a cache, and one small entry with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from anyblock.extensions import installed_plugins
from anyblock.family import ModelFamily, get_family
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.skeleton import model_class
from torch.utils._python_dispatch import TorchDispatchMode

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]
IDS = torch.arange(1, 9).reshape(1, 8)
GEMMA4 = ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")
OWN = (*GEMMA4, "cohere2", "falcon_h1", "granite", "granitemoehybrid", "llama4", "llama4_text")
"""Families whose layers themselves do something that no half takes along: a norm for both, multipliers, a view."""


class Operations(TorchDispatchMode):
    """Counts the operations that reach a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(family: ModelFamily, removed: dict[int, tuple[str, ...]], **options: Any) -> list[Counter[str]]:
    """Return the operations of every layer in one forward pass of a model without these halves."""
    config = family.conformance_config()
    blocks = family.create_block_configs(config)
    for index, halves in removed.items():
        for half in halves:
            blocks[index] = blocks[index].with_half(half, no_op=True)
    torch.manual_seed(0)
    with heterogeneous(family, blocks):
        model = model_class(config)._from_config(config).eval()
    found: list[Counter[str]] = []
    open_modes: list[Operations] = []

    def before(*_: Any) -> None:
        open_modes.append(Operations().__enter__())

    def after(*_: Any) -> None:
        mode = open_modes.pop()
        mode.__exit__(None, None, None)
        found.append(mode.counts)

    for index in range(len(blocks)):
        layer = model.get_submodule(family.layer_block_name(index))
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
    with torch.no_grad():
        model(IDS, **options)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_removed_half_costs_no_operation(name: str) -> None:
    """Layers without both halves do nothing, and what each half costs alone adds up to the cost of the whole layer."""
    family = get_family(name)
    blocks = family.create_block_configs(family.conformance_config())
    everywhere = range(len(blocks))
    whole = operations(family, {}, use_cache=False)
    neither = operations(family, dict.fromkeys(everywhere, ("attention", "ffn")), use_cache=False)
    assert all(whole)
    if name in OWN:
        assert not [operation for counts in neither for operation in counts if "mm." in operation]
        return
    assert neither == [Counter()] * len(blocks)
    attention = operations(family, dict.fromkeys(everywhere, ("ffn",)), use_cache=False)
    ffn = operations(family, dict.fromkeys(everywhere, ("attention",)), use_cache=False)
    assert [one + other for one, other in zip(attention, ffn, strict=True)] == whole


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in OWN])
def test_with_a_cache_only_its_entry_is_left(name: str) -> None:
    """The entry, of one head and one dimension, is made and appended: nothing else."""
    family = get_family(name)
    blocks = family.create_block_configs(family.conformance_config())
    found = operations(family, dict.fromkeys(range(len(blocks)), ("attention", "ffn")), use_cache=True)
    allowed = {"aten.new_zeros.default", "aten.lift_fresh.default", "aten.cat.default", "aten.slice.Tensor"}
    assert all(set(counts) <= allowed for counts in found), found
