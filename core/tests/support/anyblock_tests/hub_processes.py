"""Fixtures of processes that know no hub but the one on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyblock_tests.forked import run_forked

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(hub: Any, tmp_path: Path) -> Run:
    """Run Python in a process whose hub is `hub` and whose cache is its own; arguments go to `sys.argv`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("HF_") and "PROXY" not in name.upper()
    }
    base = {**kept, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**base, **environment}
        if arguments[0] in ("-c", "-m"):
            return run_forked(*arguments, folder=tmp_path, environment=variables)
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=tmp_path)

    return run


@pytest.fixture
def anyblock(python: Run) -> Run:
    """Run the command line in such a process."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return python("-m", "anyblock", *arguments, **environment)

    return run


@pytest.fixture
def call(python: Run) -> Callable[..., Any]:
    """Run code in such a process and return the JSON that it prints."""

    def run(code: str, *arguments: str | Path, **environment: str) -> Any:
        done = python("-c", code, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def connected(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this process push to `hub`, without a token. Downloads need a process of their own: their address is fixed."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return hub
