"""llama.cpp for the tests of this folder, which are skipped where the wheel `xllamacpp` is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyblock_gguf.library import library_path

LlamaCpp = Callable[..., dict[str, Any]]


@pytest.fixture
def llama_cpp(tmp_path: Path) -> LlamaCpp:
    """Return `llama_cpp(exports, **request)`: what `run_llama_cpp.py` answers on the file in each of these folders."""
    library = library_path()
    if library is None:
        pytest.skip("xllamacpp is not installed")

    def run(exports: Sequence[Path], **request: Any) -> dict[str, Any]:
        files = [str(file) for folder in exports for file in folder.glob("*.gguf")]
        assert len(files) == len(exports)
        asked, answer = tmp_path / "request.json", tmp_path / "answer.npz"
        asked.write_text(json.dumps({"library": str(library), "files": files, **request}))
        script = Path(__file__).with_name("run_llama_cpp.py")
        done = subprocess.run([sys.executable, str(script), str(asked), str(answer)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
        return dict(np.load(answer))

    return run
