"""Reports in files."""

from __future__ import annotations

import json
from pathlib import Path

from anyblock.errors import InputError, OutputExistsError

from anyblock_conformance.report.model import Report


def read_report(path: Path) -> Report:
    """Read a report that `--json` wrote.

    Raises:
        InputError: the file is missing or is not a report.
    """
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            expected="a report that `anyblock conformance --json` wrote",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file, replacing what is there.

    Raises:
        OutputExistsError: there is a directory of that name.
        InputError: its folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise OutputExistsError(f"{path} is a directory", expected="the name of a file")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}", expected="a file in a folder that exists") from error


def json_text(data: object) -> str:
    """Return indented JSON with a newline at the end."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
