"""Regenerate the index of known adapters from the `pyproject.toml` files of the workspace's plugins.

Run it after adding a plugin or a `model_type`: `python core/scripts/update_known_index.py`. `--check` only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

CORE = Path(__file__).resolve().parents[1]


def read_index(plugins: Path) -> dict[str, str]:
    """Return `{model_type: distribution}` of every plugin below a folder, sorted.

    Raises:
        SystemExit: two plugins register one `model_type`.
    """
    index: dict[str, str] = {}
    for path in sorted(plugins.glob("*/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for model_type in project.get("entry-points", {}).get("anyblock.families", {}):
            if index.setdefault(model_type, project["name"]) != project["name"]:
                sys.exit(f"{index[model_type]} and {project['name']} both register {model_type}")
    return dict(sorted(index.items()))


def main() -> None:
    """Write the index, or with `--check` exit with 1 when it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument("--plugins", type=Path, default=CORE.parent / "plugins")
    parser.add_argument("--index", type=Path, default=CORE / "src" / "anyblock" / "plugins" / "known.json")
    options = parser.parse_args()
    text = json.dumps(read_index(options.plugins), indent=2) + "\n"
    if not options.check:
        options.index.write_text(text, encoding="utf-8")
    elif not options.index.exists() or options.index.read_text(encoding="utf-8") != text:
        sys.exit(f"{options.index} is not up to date; run python {Path(__file__).name}")


if __name__ == "__main__":
    main()
