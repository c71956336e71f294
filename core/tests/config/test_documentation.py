"""The page on configuration is what the script prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2]
PAGE = CORE / "docs" / "configuration.md"
SCRIPT = CORE / "scripts" / "write_configuration_docs.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the workspace is not here")
def test_the_page_is_up_to_date() -> None:
    printed = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, check=True).stdout.decode("utf-8")
    assert PAGE.read_text(encoding="utf-8") == printed, f"python core/scripts/{SCRIPT.name} > core/docs/{PAGE.name}"
