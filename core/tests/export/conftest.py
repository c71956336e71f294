"""What tests of exports share: a child as transformers reads it, and what it computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock import export_child, load_model


@pytest.fixture(scope="module")
def exported(trained_child: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trained child in the format `transformers`, and a file with its logits for the tokens 1 to 24 in two rows."""
    folder = tmp_path_factory.mktemp("exported")
    out = export_child(trained_child, folder / "out", "transformers")
    with torch.no_grad():
        torch.save(load_model(trained_child)(torch.arange(1, 25).reshape(2, 12)).logits, folder / "logits.pt")
    return out, folder / "logits.pt"
