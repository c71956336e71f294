"""What is inferred about the families of this repository agrees with their adapters, which people wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from anyblock.contract.capabilities import CAPABILITIES
from anyblock.family import ModelFamily, get_family
from anyblock_new_family.introspection import infer_from, inferred_model_family
from anyblock_new_family.introspection.model import TinyModel
from anyblock_new_family.introspection.tiny import TinyConfig

QUICK = ("llama", "phi3", "gemma2", "mixtral")
OTHERS = ("qwen2", "qwen3", "mistral", "olmoe", "qwen3_moe", "gpt_oss", "gemma3_text")


@dataclass(frozen=True)
class Differs:
    """In what an inferred family cannot agree with the adapter, and why.

    Attributes:
        why: the reason.
        groups: `{the adapter's name of a group: the inferred one}`.
        fields: of block configs, by path.
        overrides: attributes that only the adapter sets for a layer.
        kinds: of pruning that only the adapter has.
    """

    why: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    fields: frozenset[str] = frozenset()
    overrides: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


DIFFERENT = {
    "deepseek_v3": Differs(
        why="every head has its own keys and values, made of a latent vector: the adapter counts query heads and cuts both of "
        "them together, while no attribute sets the number of keys and values, so that introspection states it as fixed",
        fields=frozenset({"attention.num_key_value_heads", "attention.num_attention_heads"}),
        overrides=frozenset({"num_key_value_heads"}),
        kinds=frozenset({"query_groups"}),
    ),
    "nemotron_h": Differs(
        why="a Mamba is looked at as a whole, and the shared expert, whose width has an attribute of its own, is left alone",
        fields=frozenset({"attention.mamba", "ffn.moe.shared_expert_intermediate_dim"}),
        overrides=frozenset(
            {"ssm_state_size", "mamba_num_heads", "mamba_head_dim", "n_groups", "moe_shared_expert_intermediate_size"}
        ),
        kinds=frozenset({"mamba_heads"}),
    ),
    "qwen3_vl": Differs(
        why="what does not run on text alone is one group, and nothing says that it is an encoder of images",
        groups={"vision_encoding": "not_run_on_text"},
    ),
}


@pytest.mark.parametrize(
    "model_type", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in (*OTHERS, *DIFFERENT))]
)
def test_groups_blocks_overrides_and_pruned_weights_agree(model_type: str) -> None:
    """Groups, block configs, overrides and pruned weights of a tiny model are the same from both, or differ as is said."""
    adapter, differs = get_family(model_type), DIFFERENT.get(model_type, Differs())
    tiny = TinyModel(_as_tiny(adapter.conformance_config()))
    inferred = inferred_model_family(infer_from(tiny))
    blocks, others = adapter.create_block_configs(tiny.config), inferred.create_block_configs(tiny.config)
    pairs = [(_flat(block.to_dict()), _flat(other.to_dict())) for block, other in zip(blocks, others, strict=True)]
    assert {name for mine, other in pairs for name in _unlike(mine, other)} == _leaves(differs.fields, pairs)
    groups = _groups(adapter, tiny)
    assert _groups(inferred, tiny) == {differs.groups.get(name, name): names for name, names in groups.items()}
    stated = [adapter.block_config_to_layer_overrides(block) for block in blocks]
    found = [inferred.block_config_to_layer_overrides(block) for block in blocks]
    assert {
        name for mine, other in zip(stated, found, strict=True) for name in _unlike(mine, other)
    } == differs.overrides
    own, other = adapter.pruning_mixins(), inferred.pruning_mixins()
    shared = sorted(own.keys() & other.keys())
    # Kinds of installed extensions are no capability of a family.
    assert set(own) & set(CAPABILITIES) - {"hidden_size"} - differs.kinds == set(shared)
    assert differs.kinds <= own.keys() - other.keys()
    for kind in shared:
        for layer, block in enumerate(blocks):
            if not own[kind].applies_to(block):
                continue
            tensors = {name: tiny.tensors[name] for name in groups[f"block_{layer}_{own[kind].half}"]}
            pruned = [_pruned(family[kind], layer, tensors, block, tiny.text) for family in (own, other)]
            assert pruned[0].keys() == pruned[1].keys()
            assert all(torch.equal(tensor, pruned[1][name]) for name, tensor in pruned[0].items())


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def _unlike(mine: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name)}


def _leaves(fields: frozenset[str], pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> set[str]:
    """Return the fields with those below them, as far as any block config has them."""
    known = {name for pair in pairs for values in pair for name in values}
    return {name for name in known for own in fields if name == own or name.startswith(f"{own}.")} - {
        name for name in fields if all(pair[0].get(name) is None and pair[1].get(name) is None for pair in pairs)
    }


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
