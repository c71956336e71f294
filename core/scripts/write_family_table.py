"""Write the table of families into the root README, from what the distributions in `plugins/` say of themselves.

python core/scripts/write_family_table.py
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- families: written by core/scripts/write_family_table.py -->", "<!-- end of families -->"


def table() -> str:
    """Return the table in Markdown, one row a distribution, in alphabetical order."""
    rows = ["| distribution | serves `model_type` | models |", "|---|---|---|"]
    for file in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        served = project["entry-points"].get("anyblock.families")
        if served:
            types = ", ".join(f"`{name}`" for name in sorted(served))
            description = re.sub(r"^AnyBlock adapters? for (.*?)(?: models)?$", r"\1", project["description"])
            rows.append(f"| [`{project['name']}`](plugins/{file.parent.name}) | {types} | {description} |")
    return "\n".join(rows)


def with_table(readme: str) -> str:
    """Return the README with the current table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
