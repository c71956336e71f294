"""GGUF exports of Llamas in llama.cpp.

Logits are compared with those of the child in float32. llama.cpp rounds activations to 16 bits (F16) or to 8 bits (Q8_0)
before each product with a matrix, and Q8_0 rounds the weights as well: the root mean square of the difference stays below
`TOLERANCE` times the logits' standard deviation.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyblock import export_child, load_model
from anyblock_tests.fixtures import TRAINED
from anyblock_tests.small_llamas import CASES, child_of, tokenizer_like

ASSET = TRAINED
TOLERANCE = {"f16": 0.003, "q8_0": 0.1}
PROMPT = [464, 12, 99, 3, 7, 21, 55, 100, 2, 9]
TEXTS = [
    "Once upon a time there was a little dog.",
    "  two  spaces\tand\na line \n\n  \r\n end  ",
    "I've told you; we'll see. DON'T! It'S he'd 'll",
    "3.14159 and 1234567890, 2nd, x2, 1,000",
    "naïve café — Straße, Ёлка, 我想在apple工作1314151天～, ٣٤٥, 🚀🦙 e\u0301",
    "a<|endoftext|>b",
    "",
]


def compare(
    child: Path, llama_cpp: Any, folder: Path, *, prompt: list[int], new: int
) -> dict[str, tuple[float, float]]:
    """Return by type the difference of logits in units of their standard deviation, and the share of equal tokens."""
    exports = [export_child(child, folder / kind, "gguf", settings={"type": kind}) for kind in TOLERANCE]
    found = llama_cpp(exports, prompt=prompt, new=new)
    model = load_model(child, dtype="float32")
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(ids).logits[0]
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False
        )
    result = {}
    for place, kind in enumerate(TOLERANCE):
        apart = (torch.from_numpy(found[f"logits_{place}"]) - logits) / logits.std()
        rms, worst = apart.square().mean().sqrt(), apart.abs().max()
        same = np.mean(found[f"greedy_{place}"] == written[0, len(prompt) :].numpy())
        print(
            f"{kind}: rms {rms:.2g}, at most {worst:.2g} standard deviations; {same:.0%} of {new} greedy tokens equal"
        )
        result[kind] = float(rms), float(same)
    return result


@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens_are_the_childs(name, tmp_path, llama_cpp):
    found = compare(child_of(tmp_path, CASES[name]), llama_cpp, tmp_path, prompt=PROMPT, new=16)
    assert all(rms < TOLERANCE[kind] for kind, (rms, _) in found.items())
    assert found["f16"][1] == 1


def test_a_trained_child(trained_child, tmp_path, llama_cpp):
    found = compare(trained_child, llama_cpp, tmp_path, prompt=PROMPT, new=32)
    assert all(rms < TOLERANCE[kind] and same == 1 for kind, (rms, same) in found.items())


@pytest.mark.skipif("ANYBLOCK_GGUF_CHILD" not in os.environ, reason="`nox -s gguf -- CHILD` names one")
def test_the_child_that_was_named(tmp_path, llama_cpp):
    from anyblock.calibration.tokenizer import load_tokenizer

    child = Path(os.environ["ANYBLOCK_GGUF_CHILD"])
    prompt = load_tokenizer(child)("The sky looks blue because")["input_ids"]
    found = compare(child, llama_cpp, tmp_path, prompt=prompt, new=32)
    assert all(rms < TOLERANCE[kind] for kind, (rms, _) in found.items())
    assert found["f16"][1] == 1
    compare_tokens(child, tmp_path, llama_cpp)


def compare_tokens(child: Path, folder: Path, llama_cpp: Any) -> None:
    from anyblock.calibration.tokenizer import load_tokenizer

    found = llama_cpp([export_child(child, folder / "tokens", "gguf")], texts=TEXTS)
    tokenizer = load_tokenizer(child)
    for index, text in enumerate(TEXTS):
        assert found[f"text_0_{index}"].tolist() == tokenizer(text)["input_ids"], text


DIGITS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


@pytest.mark.parametrize("changes", [{}, {"pre_tokenizer": DIGITS}], ids=["gpt-2", "smollm"])
def test_texts_become_the_same_tokens(changes, tmp_path, llama_cpp):
    tokenizer = tokenizer_like(ASSET, tmp_path / "tokenizer", **changes)
    compare_tokens(child_of(tmp_path, {"removed": {1: ("ffn",)}}, tokenizer), tmp_path, llama_cpp)
