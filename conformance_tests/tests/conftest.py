"""The mutants can be imported as `mutants`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure() -> None:
    # Every worker process shares two cores with the others.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
