"""A tokenizer of single bytes, and the reference material beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def byte_tokenizer(*, bos: bool = True, eos: bool = False):
    """Return a tokenizer with one token a byte, that puts `<s>` in front and, if asked, `</s>` behind."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=32)


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer():
    return byte_tokenizer


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material; a test that asks for it is skipped where it is absent."""
    if "ANYBLOCK_SHARED" in os.environ:
        found = Path(os.environ["ANYBLOCK_SHARED"])
    else:
        root = next((parent for parent in Path(__file__).parents if (parent / "noxfile.py").is_file()), Path("/absent"))
        found = root.parent / "shared"
    if not found.is_dir():
        pytest.skip("the reference material is not here")
    return found
