"""Several texts in one run, each with its share of the windows."""

from __future__ import annotations

from typing import Any

import torch
from anyblock.calibration.mixture import pack_mixture
from anyblock.calibration.packing import pack_text
from anyblock.calibration.text import Text
from anyblock.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

LETTERS = "abcdef"


def texts(weights: list[float], length: int = 4000) -> list[tuple[str, Text, float]]:
    return [(letter, Text(letter * length), weight) for letter, weight in zip(LETTERS, weights, strict=False)]


def of_each(windows: torch.Tensor, make_tokenizer: Any, count: int) -> list[int]:
    tokenizer = make_tokenizer(bos=False)
    first = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in LETTERS[:count]]
    return [int((windows[:, -1] == token).sum()) for token in first]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), st.integers(1, 60))
def test_every_text_has_its_share(make_tokenizer: Any, weights: list[float], blocks: int) -> None:
    total = sum(weights)
    try:
        windows, notes = pack_mixture(texts(weights), make_tokenizer(bos=False), 8, max_tokens=8 * blocks)
    except UsageError:
        assert min(weights) / total * blocks < 1
        return
    assert windows.shape == (blocks, 8)
    assert not notes
    found = of_each(windows, make_tokenizer, len(weights))
    assert all(abs(count - blocks * weight / total) < 1 for count, weight in zip(found, weights, strict=True))


def test_every_part_of_it_is_a_mixture_too(make_tokenizer: Any) -> None:
    windows, _ = pack_mixture(texts([1, 1, 2]), make_tokenizer(bos=False), 8, max_tokens=8 * 40)
    for start in range(0, 40, 8):
        assert of_each(windows[start : start + 8], make_tokenizer, 3) == [2, 2, 4]


def test_one_text_is_packed_as_always(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(bos=True)
    windows, _ = pack_mixture(texts([3.0]), tokenizer, 8, max_tokens=80)
    assert torch.equal(windows, pack_text("a" * 4000, tokenizer, 8, max_tokens=80))


def test_a_text_that_is_too_short_gives_what_it_has_and_says_so(make_tokenizer: Any) -> None:
    parts = [("short", Text("a" * 20), 1.0), ("long", Text("b" * 400), 1.0)]
    windows, notes = pack_mixture(parts, make_tokenizer(bos=False), 8, max_tokens=80)
    assert of_each(windows, make_tokenizer, 2) == [2, 5]
    assert notes == ["short: 2 of 5 blocks of 8 tokens, since the text has no more"]
