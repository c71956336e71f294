"""What tests of all families share: each family's tiny model, converted once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from anyblock import convert_model, get_family
from anyblock_conformance.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives a family's tiny model as a subblock checkpoint, which is not to be changed."""

    @cache
    def made(model_type: str) -> Path:
        folder = tmp_path_factory.mktemp("tiny")
        source = save_tiny(get_family(model_type).conformance_config(), folder / "source")
        return convert_model(source, folder / "teacher")

    return made
