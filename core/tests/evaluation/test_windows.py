"""Windows for perplexity: which tokens are counted, and with how much context."""

from __future__ import annotations

import pytest
import torch
from anyblock.errors import InputError, UsageError
from anyblock.evaluation.windows import windows
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=100)


@quick
@given(st.integers(2, 60), st.integers(2, 12), st.data())
def test_a_stride_counts_every_token_once_with_enough_context(length, block_size, data):
    tokens = torch.arange(length)
    stride = data.draw(st.integers(1, block_size))
    if length < block_size:
        with pytest.raises(InputError, match="too few"):
            windows(tokens, block_size, stride)
        return
    ids, labels = windows(tokens, block_size, stride)
    counted = labels != -100
    assert torch.equal(labels[counted], tokens)
    assert torch.equal(labels[counted], ids[counted])
    for row in range(1, len(ids)):
        context = int(counted[row].int().argmax())
        assert context >= block_size - stride
        assert not counted[row, :context].any()


@quick
@given(st.integers(2, 60), st.integers(2, 12))
def test_without_a_stride_blocks_do_not_overlap(length, block_size):
    if length < block_size:
        return
    ids, labels = windows(torch.arange(length), block_size)
    assert torch.equal(ids, labels)
    assert torch.equal(ids.flatten(), torch.arange(length // block_size * block_size))


@pytest.mark.parametrize("stride", [0, 9])
def test_stride_is_checked(stride):
    with pytest.raises(UsageError, match="stride is"):
        windows(torch.arange(20), 8, stride)
