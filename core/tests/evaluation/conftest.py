"""A tokenizer of single bytes, and the reference material beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from anyblock_tests.byte_tokenizer import byte_tokenizer


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
