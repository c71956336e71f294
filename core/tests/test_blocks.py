"""Block configs: what stands alone, and the JSON form."""

from __future__ import annotations

from typing import Any

import pytest
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.errors import ConfigError

MOE = {"num_local_experts": 4, "num_experts_per_tok": 2, "expert_intermediate_dim": 8}
FULL = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(moe=MoEConfig(**MOE)))


@pytest.mark.parametrize("field", ["no_op", "replace_with_linear"])
def test_a_removed_half_has_no_sizes_and_survives_json(field: str) -> None:
    block = FULL.with_attention(**{field: True}).with_ffn(**{field: True})
    assert block.attention.removed
    assert block.ffn.removed
    assert (block.attention.num_key_value_heads, block.ffn.moe) == (None, None)
    assert BlockConfig.from_dict(block.to_dict()) == block
    with pytest.raises(ConfigError, match="has sizes"):
        AttentionConfig(num_key_value_heads=2, **{field: True})
    with pytest.raises(ConfigError, match="has sizes"):
        FFNConfig(intermediate_size=8, **{field: True})


def test_a_half_is_not_removed_twice_over() -> None:
    with pytest.raises(ConfigError, match="a no-op and a linear map"):
        FFNConfig(no_op=True, replace_with_linear=True)
    with pytest.raises(ConfigError, match="no_op and replace_with_linear"):
        BlockConfig.from_dict({**FULL.to_dict(), "ffn": {"no_op": True, "replace_with_linear": True}})


@pytest.mark.parametrize("value", [False, None])
def test_what_modelopt_writes_of_a_half_without_a_map_means_nothing(value: Any) -> None:
    data = FULL.to_dict()
    assert "replace_with_linear" not in data["ffn"]
    given = {half: {**data[half], "replace_with_linear": value, "sparsify": None} for half in data}
    assert BlockConfig.from_dict(given) == FULL


def test_sizes_beside_a_map_say_nothing_as_beside_a_no_op() -> None:
    """ModelOpt leaves some of them in."""
    data = FULL.to_dict()
    read = BlockConfig.from_dict({**data, "ffn": {**data["ffn"], "replace_with_linear": True}})
    assert read.ffn == FFNConfig(replace_with_linear=True)


@pytest.mark.parametrize("value", ["yes", 1, 0, [], "true"])
@pytest.mark.parametrize("field", ["no_op", "replace_with_linear"])
def test_anything_but_true_and_false_is_refused(field: str, value: Any) -> None:
    data = FULL.to_dict()
    with pytest.raises(ConfigError, match=rf"block config\.ffn\.{field} is .*\n.*true or false"):
        BlockConfig.from_dict({**data, "ffn": {**data["ffn"], field: value}})
