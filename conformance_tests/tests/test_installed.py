"""The suite as people install it: from its wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CODE = """
import sys
import anyblock_conformance
from anyblock_conformance import run_conformance
from anyblock_conformance.report.html import html_report
sys.path.append(sys.argv[1])
from mutants.structure_shapes import DoublesTheFFNWidth
report = run_conformance(DoublesTheFFNWidth, levels=["structure"])
print(anyblock_conformance.__file__)
print(report.failures[0].message)
print(len(html_report(report)))
"""


def test_assertions_of_the_installed_wheel_show_values(tmp_path):
    hatchling = pytest.importorskip("hatchling.build", reason="building the wheel needs hatchling")
    build = "import os, sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    assert hatchling
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(HERE)],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, *message, length = done.stdout.splitlines()
    assert Path(file).is_relative_to(site)
    assert "is [48, 16], expected [24, 16]" in "\n".join(message)
    assert int(length) > 5000
