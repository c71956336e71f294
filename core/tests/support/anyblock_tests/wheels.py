"""Distributions as their users get them: built as wheels, installed into a folder, and used by another interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from anyblock_tests.forked import run_forked


def install_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a source folder without the network, install it below `folder`, and return where."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder / "dist", source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "site"


def anyblock(site: Path, folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run a command in `folder`, with `site` in front on the path; returns what it prints, or its errors where it fails."""
    variables = {**os.environ, "PYTHONPATH": str(site), **environment}
    done = run_forked("-m", "anyblock", *arguments, folder=folder, environment=variables)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr
