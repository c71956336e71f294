"""What one configuration says of all layers, and in what single layers differ from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.config_view import config_view
from anyblock.errors import ConfigError

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


def text_part(config: dict[str, Any], family: ModelFamily) -> dict[str, Any]:
    """Return the part of a `config.json` (not a copy) that describes the decoder's layers."""
    view = config_view(config)
    text = family.language_model_config(view)
    if text is view:
        return config
    stated = text.to_dict()
    return next(value for value in config.values() if isinstance(value, dict) and value == stated)


def uniform_config(child: SubblockCheckpoint, family: ModelFamily) -> dict[str, Any] | None:
    """Return the stock `config.json` of a child whose layers all are what one configuration says, else None.

    Whether they are is asked of the family: unpruned, a model of that configuration must have the child's block configs.
    """
    config = copy.deepcopy(child.config)
    text = text_part(config, family)
    for block in child.block_configs:
        overrides = family.block_config_to_layer_overrides(block)
        if "num_attention_heads" in overrides and not text.get("head_dim") and "num_attention_heads" in text:
            text["head_dim"] = text["hidden_size"] // text["num_attention_heads"]
        text.update(overrides)
    try:
        same = family.create_block_configs(config_view(config)) == child.block_configs
    except ConfigError:  # transformers refuses what single layers may have, such as a number of heads
        return None
    return config if same else None


def layer_differences(child: SubblockCheckpoint, family: ModelFamily) -> list[dict[str, Any]]:
    """Return for every layer the attributes in which it differs from the child's `config.json`, and `skip`.

    `skip` lists the removed halves, `attention` and `mlp`, where the unpruned model has them; it is left out when empty.
    """
    view = config_view(child.config)
    text = family.language_model_config(view)
    differences: list[dict[str, Any]] = []
    for block, whole in zip(child.block_configs, family.create_block_configs(view), strict=True):
        overrides = family.block_config_to_layer_overrides(block)
        layer = {name: value for name, value in overrides.items() if value != getattr(text, name)}
        skip = [
            name
            for name, mine, unpruned in (
                ("attention", block.attention, whole.attention),
                ("mlp", block.ffn, whole.ffn),
            )
            if mine.no_op and not unpruned.no_op
        ]
        differences.append(layer | ({"skip": skip} if skip else {}))
    return differences


def linear_obstacles(child: SubblockCheckpoint) -> list[str]:
    """Return, for a form that has no linear maps in place of halves, what the child has of them."""
    return [
        f"layer {index} has a linear map in place of its {half}, which the form cannot say"
        for index, block in enumerate(child.block_configs)
        for half in ("attention", "ffn")
        if getattr(block, half).replace_with_linear
    ]


def by_layer(differences: list[dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return `{layer index: differences}` of the layers that have any, in order."""
    return {str(index): layer for index, layer in enumerate(differences) if layer}
