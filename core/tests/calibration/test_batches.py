"""Batches and their names."""

from __future__ import annotations

import pytest
import torch
from anyblock.calibration.batches import Batches
from anyblock.errors import InputError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

quick = settings(deadline=None, derandomize=True, max_examples=60)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 5))


def ids_of(shape):
    return torch.arange(shape[0] * shape[1]).view(shape)


@quick
@given(shapes, st.integers(1, 15))
def test_batches_are_the_sequences_in_order(shape, batch_size):
    batches = Batches(ids_of(shape), batch_size)
    parts = list(batches)
    assert len(parts) == len(batches)
    assert torch.equal(torch.cat(parts), batches.ids)
    assert all(len(part) == batch_size for part in parts[:-1])
    assert all(torch.equal(batches[index], part) for index, part in enumerate(parts))
    assert torch.equal(batches[-1], parts[-1])
    assert batches.tokens == shape[0] * shape[1]


def test_key_is_stable_and_depends_on_content_and_shape_only():
    batches = Batches(ids_of((4, 3)), 2)
    assert batches.key == "348970667c499cd3877fa9aa114b3894"  # stored results are found by it
    assert Batches(ids_of((4, 3)), 3).key == batches.key
    assert Batches(ids_of((3, 4)), 2).key != batches.key
    assert Batches(ids_of((4, 3)) + 1, 2).key != batches.key
    assert Batches(ids_of((3, 4)).T.contiguous().T, 2).key == Batches(ids_of((3, 4)), 2).key


def test_index_out_of_range():
    with pytest.raises(IndexError, match="batch 2 of 2"):
        Batches(ids_of((4, 3)), 2)[2]


@pytest.mark.parametrize(
    "ids", [torch.zeros(3, dtype=torch.long), torch.zeros(2, 3), torch.zeros(0, 3, dtype=torch.long)]
)
def test_what_is_not_a_table_of_ids_is_refused(ids):
    with pytest.raises(InputError, match="token ids are"):
        Batches(ids)


def test_batch_size_is_checked():
    with pytest.raises(UsageError, match="batch size is 0"):
        Batches(ids_of((2, 2)), 0)
