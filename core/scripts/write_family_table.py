"""Write the tables of families into the root README, from what the distributions in `plugins/` say of themselves.

`python core/scripts/write_family_table.py` reads their metadata and the tables in their READMEs, which
`write_capability_tables.py` writes from the conformance suite's findings; run that one first.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from anyblock.contract.capabilities import CAPABILITIES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- families: written by core/scripts/write_family_table.py -->", "<!-- end of families -->"
_FOUND = ("<!-- capabilities: written by core/scripts/write_capability_tables.py -->", "<!-- end of capabilities -->")
_SECOND = """What each can do, as the conformance suite finds it on a tiny model with every optional tensor switched on; what an
architecture does not have is left empty, and each adapter's README has the conditions:"""


def table() -> str:
    """Return the table in Markdown, one row a distribution, in alphabetical order."""
    rows = ["| distribution | serves `model_type` | models |", "|---|---|---|"]
    for file in sorted((ROOT / "plugins").glob("*/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        served = project["entry-points"].get("anyblock.families")
        if served:
            types = ", ".join(f"`{name}`" for name in sorted(served))
            description = re.sub(r"^AnyBlock adapters? for (.*?)(?: models)?$", r"\1", project["description"])
            rows.append(f"| [`{project['name']}`](plugins/families/{file.parent.name}) | {types} | {description} |")
    return "\n".join(rows)


def capability_table() -> str:
    """Return the table of families by capability in Markdown; what an architecture does not have is left empty."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted((ROOT / "plugins" / "families").glob("*/README.md")):
        rows = [_cells(line) for line in _between(file.read_text(encoding="utf-8"), *_FOUND).splitlines() if line]
        if not rows:
            continue
        families = [cell.strip("`") for cell in rows[0][1:]]
        for sentence, *states in rows[2:]:
            name = sentence.rpartition("(`")[2].removesuffix("`)")
            for family, state in zip(families, states, strict=True):
                found.setdefault(family, {})[name] = state.partition(":")[0].replace("–", "")
    names = [name for name in CAPABILITIES if any(name in states for states in found.values())]
    head = [f"| `model_type` | {' | '.join(f'`{name}`' for name in names)} |", f"|---|{'---|' * len(names)}"]
    body = [
        f"| `{family}` | {' | '.join(states.get(name, '') for name in names)} |"
        for family, states in sorted(found.items())
    ]
    return "\n".join(head + body)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split(" |")]


def _between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0].strip()


def with_table(readme: str) -> str:
    """Return the README with the current tables between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{_SECOND}\n\n{capability_table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
