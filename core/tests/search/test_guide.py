"""The guide's example runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_example_of_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "search.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(page), "exec"), names)
    solution = names["solution"]
    assert capsys.readouterr().out.endswith(" proven\n")
    assert solution.costs["params"] <= 40e6  # type: ignore[attr-defined]
