"""Windows for perplexity: which tokens are counted, and with how much context."""

from __future__ import annotations

import pytest
import torch
from anyblock.calibration.packing import Around
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


@quick
@given(st.integers(1, 60), st.integers(2, 12), st.integers(1, 2), st.data())
def test_where_something_stands_in_front_every_token_of_text_is_predicted_once(length, block_size, front, data):
    """What stands in front begins every window and is not a label, so that nothing predicts it and its place counts nowhere."""
    tokens, around = torch.arange(length) + 10, Around(tuple(range(front)), (5,))
    size = block_size - front
    stride = data.draw(st.one_of(st.none(), st.integers(1, max(1, size))))
    if size < 1:
        with pytest.raises(UsageError, match="block size is"):
            windows(tokens, block_size, stride, around)
        return
    if length < size:
        with pytest.raises(InputError, match=f"at least {size} tokens"):
            windows(tokens, block_size, stride, around)
        return
    ids, labels = windows(tokens, block_size, stride, around)
    assert ids.shape[1] == block_size
    assert (ids[:, :front] == torch.arange(front)).all()
    counted = labels != -100
    assert torch.equal(labels[counted], tokens)
    assert torch.equal(labels[counted], ids[counted])
    assert not counted[:, :front].any()
    predicted = labels[:, 1:] != -100  # what `TokenMetrics` sums the loss over
    assert int(predicted.sum()) == length
    if stride is None:
        assert len(ids) == -(-length // size)


def test_a_stride_beyond_the_text_of_a_window_is_refused():
    with pytest.raises(UsageError, match="stride is 8"):
        windows(torch.arange(20) + 10, 8, 8, Around((0,)))


def test_what_stands_between_documents_is_not_counted():
    _, labels = windows(torch.tensor([7, 8, 1, 0, 9]), 6, around=Around((0,), (1,)))
    assert labels.tolist() == [[-100, 7, 8, -100, -100, 9]]
