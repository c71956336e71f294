"""Assertions: what they accept, and the values in their messages."""

from __future__ import annotations

import pytest
import torch
from anyblock_conformance import expect
from anyblock_conformance.expect import CheckFailedError
from hypothesis import given, settings
from hypothesis import strategies as st


def message(function, *arguments, **options):
    with pytest.raises(CheckFailedError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def test_equal_shows_both_values_and_shortens_long_ones():
    expect.equal([1, 2], [1, 2], "the list")
    assert message(expect.equal, [1, 2], [1, 3], "the list") == "the list is [1, 2], expected [1, 3]"
    assert len(message(expect.equal, list(range(1000)), [], "it")) < 400


def test_nothing_lists_the_first_faults_and_counts_the_rest():
    expect.nothing([], "faults")
    text = message(expect.nothing, [f"fault {i}" for i in range(11)], "faults")
    assert "fault 0" in text
    assert "fault 7" in text
    assert "fault 8" not in text
    assert "and 3 more" in text


def test_same_compares_bits():
    a = torch.tensor([0.0, float("nan"), 1.0])
    expect.same(a, a.clone(), "t")
    assert "1 of 3 values" in message(expect.same, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]), "t")
    assert "t differs" in message(expect.same, torch.tensor([0.0]), torch.tensor([-0.0]), "t")


def test_an_identity_is_that_of_dtype_shape_and_bits():
    a = torch.tensor([[0.0, float("nan"), 1.0]])
    assert expect.identity(a) == expect.identity(a.clone())
    others = (a.t(), a.double(), torch.tensor([[-0.0, float("nan"), 1.0]]))
    assert len({expect.identity(tensor) for tensor in (a, *others)}) == 4
    assert expect.identity(a.bfloat16()).startswith("torch.bfloat16 [1, 3] ")


def test_form_comes_before_values():
    a = torch.zeros(2, 3)
    assert message(expect.same, a, a.t(), "t") == "t has shape [2, 3], expected [3, 2]"
    assert message(expect.same, a.half(), a, "t") == "t is torch.float16, expected torch.float32"
    assert "meta" in message(expect.same, a.to("meta"), a, "t")
    assert "shape" in message(expect.close, a, a.t(), "t", tolerance=1.0)


def test_close_says_by_how_much_and_where():
    a = torch.tensor([1.0, 2.0, 10.0])
    expect.close(a + 1e-5, a, "logits", tolerance=1e-4)
    text = message(expect.close, torch.tensor([1.0, 2.5, 10.0]), a, "logits", tolerance=1e-4)
    assert text == (
        "logits differs: 1 of 3 values, at most by 0.5 (found 2.5, expected 2, largest 10), allowed 0.0001 of the largest"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_never_close(value):
    a = torch.tensor([1.0, 2.0])
    assert "not finite" in message(expect.close, torch.tensor([1.0, value]), a, "logits", tolerance=9.0)
    assert "not finite" in message(expect.close, a, torch.tensor([1.0, value]), "logits", tolerance=9.0)


def test_what_is_allowed_is_a_share_of_the_largest_value_whatever_the_dtype():
    a = torch.tensor([1.0, 100.0], dtype=torch.bfloat16)
    expect.close(torch.tensor([1.0, 101.0], dtype=torch.bfloat16), a, "logits", tolerance=0.03)
    message(expect.close, torch.tensor([1.0, 104.0], dtype=torch.bfloat16), a, "logits", tolerance=0.03)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5), st.floats(-5, 5, width=32))
def test_distance_is_the_largest_gap_over_the_largest_value(values, gap):
    expected = torch.tensor(values)
    found = expected.clone()
    found[0] += gap
    largest = float(expected.abs().max())
    wanted = abs(float(found[0]) - float(expected[0])) / max(largest, 1e-30)
    assert expect.distance(found, expected) == pytest.approx(wanted, rel=1e-6, abs=1e-12)
