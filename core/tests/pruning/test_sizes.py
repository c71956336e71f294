"""Which sizes are legal, and how people write them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anyblock.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.errors import CheckpointError, UsageError
from anyblock.pruning import dense_mixins, hidden_mixins, parse_sizes, sparse_mixins
from hypothesis import given, settings
from hypothesis import strategies as st

_CONFIG = SimpleNamespace(num_attention_heads=12, hidden_size=48, head_dim=None)
_DENSE = BlockConfig(attention=AttentionConfig(num_key_value_heads=6), ffn=FFNConfig(intermediate_size=100))
_MOE = MoEConfig(num_local_experts=16, num_experts_per_tok=4, expert_intermediate_dim=32)
_SPARSE = BlockConfig(attention=AttentionConfig(no_op=True), ffn=FFNConfig(moe=_MOE))
_MIXINS = {**dense_mixins(), **sparse_mixins()}


@pytest.mark.parametrize(
    ("kind", "size", "near"),
    [
        ("ffn_intermediate", 101, "100"),
        ("ffn_intermediate", 0, "1"),
        ("kv_heads", 4, "3 or 6"),
        ("kv_heads", 7, "6"),
        ("query_groups", 7, "6"),
        ("query_groups", -1, "1"),
        ("experts_removal", 3, "4"),
        ("experts_removal", 17, "16"),
        ("expert_intermediate", 12, "8 or 16"),
        ("expert_intermediate", 40, "32"),
    ],
)
def test_an_impossible_size_is_refused_with_the_nearest_ones(kind: str, size: int, near: str) -> None:
    mixin = _MIXINS[kind]
    block = _DENSE if mixin.applies_to(_DENSE) else _SPARSE
    with pytest.raises(UsageError, match=f"{kind}: a size of {size} is not possible") as caught:
        mixin.resize(block, size, _CONFIG)
    assert caught.value.hint == f"the nearest possible size is {near}"
    assert str(mixin.size(block)) in caught.value.what


@pytest.mark.parametrize("kind", _MIXINS)
def test_every_legal_size_can_be_made(kind: str) -> None:
    mixin = _MIXINS[kind]
    block = _DENSE if mixin.applies_to(_DENSE) else _SPARSE
    legal = list(mixin.legal_sizes(block, _CONFIG))
    assert legal == sorted(set(legal))
    assert legal[-1] == mixin.size(block)
    for size in legal:
        child = mixin.resize(block, size, _CONFIG)
        assert mixin.size(child) == size
        assert getattr(child, "attention" if mixin.half == "ffn" else "ffn") == getattr(
            block, "attention" if mixin.half == "ffn" else "ffn"
        )
    assert mixin.resize(block, mixin.size(block), _CONFIG) == block or kind == "query_groups"


def test_a_block_without_such_units_is_refused() -> None:
    for kind, mixin in _MIXINS.items():
        block = _SPARSE if mixin.applies_to(_DENSE) else _DENSE
        assert not mixin.applies_to(block)
        with pytest.raises(UsageError, match=kind):
            mixin.check_size(block, 1, _CONFIG)
        with pytest.raises(UsageError, match=kind):
            mixin.size(block)


def test_query_groups_keep_the_number_of_queries_for_each_head() -> None:
    child = _MIXINS["query_groups"].resize(_DENSE, 4, _CONFIG)
    assert child.attention == AttentionConfig(num_key_value_heads=4, num_attention_heads=8)
    again = _MIXINS["query_groups"].resize(child, 1, _CONFIG)
    assert again.attention == AttentionConfig(num_key_value_heads=1, num_attention_heads=2)


def test_query_heads_that_cannot_be_shared_out_are_refused() -> None:
    odd = BlockConfig(attention=AttentionConfig(num_key_value_heads=5), ffn=FFNConfig(no_op=True))
    with pytest.raises(CheckpointError, match="12 query heads over 5"):
        _MIXINS["query_groups"].resize(odd, 2, _CONFIG)


@pytest.mark.parametrize("kind", ["ffn_intermediate", "kv_heads"])
@pytest.mark.parametrize("order", [[0, 1], [0] * 6, [6, 5, 4, 3, 2, 1], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
def test_an_order_that_is_no_permutation_is_refused(kind: str, order: list[Any]) -> None:
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=6), ffn=FFNConfig(intermediate_size=6))
    with pytest.raises(UsageError, match="the order"):
        _MIXINS[kind].sort(0, {}, block, torch.tensor(order), _CONFIG)


def test_a_missing_tensor_is_named_with_what_was_found() -> None:
    with pytest.raises(CheckpointError, match=r"model\.layers\.3\.mlp\.down_proj\.weight") as caught:
        _MIXINS["ffn_intermediate"].sort(3, {"other": torch.zeros(1)}, _DENSE, torch.arange(100), _CONFIG)
    assert "other" in caught.value.hint


def test_hidden_size_pins_the_width_of_heads() -> None:
    mixin = hidden_mixins()["hidden_size"]
    assert mixin.resize_config(_CONFIG, 40) == {"hidden_size": 40, "head_dim": 4}
    with pytest.raises(UsageError, match="49"):
        mixin.resize_config(_CONFIG, 49)
    with pytest.raises(UsageError, match="does not hold the hidden size"):
        mixin.size(_DENSE)


def test_sizes_as_people_write_them() -> None:
    assert parse_sizes([64, 0.5, "0.25x", "75%", "96", 1.0, "1x"], 128) == [32, 64, 96, 128]
    assert parse_sizes([0.3, "0.01x"], 100, multiple=16) == [16, 32]
    assert parse_sizes(["0.99x"], 100, multiple=16) == [96]
    assert parse_sizes([0.1], 6, multiple=8) == [6]
    assert parse_sizes([], 6) == []


@pytest.mark.parametrize("bad", [0, -1, 129, 1.5, 0.0, "2x", "half", "", "0.5y", True, "-0.5x", "129", float("nan")])
def test_what_is_no_size_is_refused(bad: Any) -> None:
    with pytest.raises(UsageError, match=r"size|is not"):
        parse_sizes([bad], 128)


@settings(deadline=None, derandomize=True)
@given(fraction=st.floats(0.001, 1.0), full=st.integers(1, 20000), multiple=st.sampled_from([1, 8, 64, 256]))
def test_a_fraction_becomes_a_near_multiple(fraction: float, full: int, multiple: int) -> None:
    (size,) = parse_sizes([fraction], full, multiple)
    assert 1 <= size <= full
    assert size % multiple == 0 or size == full
    assert abs(size - fraction * full) <= multiple
