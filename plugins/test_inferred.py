"""What is inferred about the families of this repository agrees with their adapters, which people wrote."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.capabilities import CAPABILITIES
from anyblock.family import ModelFamily, get_family
from anyblock.introspection import infer_from, inferred_model_family
from anyblock.introspection.model import TinyModel
from anyblock.introspection.tiny import TinyConfig

QUICK = ("llama", "phi3", "gemma2", "mixtral")
OTHERS = ("qwen2", "qwen3", "mistral", "olmoe", "qwen3_moe", "gpt_oss", "gemma3_text")


@pytest.mark.parametrize("model_type", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_groups_blocks_overrides_and_pruned_weights_agree(model_type: str) -> None:
    """Groups, block configs, overrides and pruned weights of a tiny model are the same from both."""
    adapter = get_family(model_type)
    tiny = TinyModel(_as_tiny(adapter.conformance_config()))
    inferred = inferred_model_family(infer_from(tiny))
    blocks = adapter.create_block_configs(tiny.config)
    assert inferred.create_block_configs(tiny.config) == blocks
    assert _groups(inferred, tiny) == _groups(adapter, tiny)
    assert [inferred.block_config_to_layer_overrides(block) for block in blocks] == [
        adapter.block_config_to_layer_overrides(block) for block in blocks
    ]
    own, other = adapter.pruning_mixins(), inferred.pruning_mixins()
    shared = sorted(own.keys() & other.keys())
    # Kinds of installed extensions are no capability of a family.
    assert set(own) & set(CAPABILITIES) - {"hidden_size"} == set(shared)
    groups = _groups(adapter, tiny)
    for kind in shared:
        for layer, block in enumerate(blocks):
            if not own[kind].applies_to(block):
                continue
            tensors = {name: tiny.tensors[name] for name in groups[f"block_{layer}_{own[kind].half}"]}
            found = [_pruned(family[kind], layer, tensors, block, tiny.text) for family in (own, other)]
            assert found[0].keys() == found[1].keys()
            assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def _as_tiny(config: Any) -> TinyConfig:
    values = {name: value for name, value in config.to_diff_dict().items() if name not in ("model_type", "dtype")}
    return TinyConfig(f"{type(config).__module__}.{type(config).__qualname__}", values)


def _groups(family: ModelFamily, tiny: TinyModel) -> dict[str, list[str]]:
    patterns = family.layer_name_predicates(len(family.create_block_configs(tiny.config)), tiny.config)
    found = {group: [n for n in tiny.tensors if pattern.fullmatch(n)] for group, pattern in patterns.items()}
    return {group: names for group, names in found.items() if names}


def _pruned(mixin: Any, layer: int, tensors: Any, block: Any, config: Any) -> dict[str, torch.Tensor]:
    order = torch.arange(mixin.size(block) - 1, -1, -1)
    size = mixin.legal_sizes(block, config)[0]
    ordered = mixin.sort(layer, tensors, block, order, config)
    return mixin.narrow(layer, ordered, block, mixin.resize(block, size, config), config)
