"""Write what each adapter supports into its README, as the conformance suite found it.

`python core/scripts/write_capability_tables.py [PLUGIN ...]` runs the suite on the families of the named folders of
`plugins/`, or of all. A README has its table between two marks; one without them is left alone. A family that does not
conform stops the script, and nothing of its distribution is written.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from anyblock.contract.capabilities import CAPABILITIES
from anyblock_conformance.run import run_conformance

PLUGINS = Path(__file__).parents[2] / "plugins" / "families"
BEGIN, END = "<!-- capabilities: written by core/scripts/write_capability_tables.py -->", "<!-- end of capabilities -->"
_UNSUPPORTED, _WORDS = "unsupported", {"full": "yes", "unsupported": "–", "not implemented": "not yet"}


def families(plugin: Path) -> list[str]:
    """Return the families that a distribution serves, in alphabetical order."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["entry-points"].get("anyblock.families", {}))


def confirmed(family: str) -> dict[str, tuple[str, str]]:
    """Run the suite on a family's tiny model, and return `{capability: (declared state, note)}`.

    Raises:
        SystemExit: the family does not pass the suite.
    """
    report = run_conformance(family)
    if any(result.outcome.is_failure for result in report.results):
        sys.exit(f"{family} does not conform; run `{report.command}`")
    return {found.name: (found.declared, found.note) for found in report.capabilities}


def table(states: dict[str, dict[str, tuple[str, str]]]) -> str:
    """Return the table in Markdown: a row for every capability that some family's architecture has, a column a family."""
    rows = [f"| | {' | '.join(f'`{family}`' for family in states)} |", f"|---|{'---|' * len(states)}"]
    for name, sentence in CAPABILITIES.items():
        found = [capabilities[name] for capabilities in states.values()]
        if any(state != _UNSUPPORTED for state, _ in found):
            cells = [_WORDS.get(state, state) + (f": {note}" if note else "") for state, note in found]
            rows.append(f"| {sentence} (`{name}`) | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_table(readme: str, states: dict[str, dict[str, tuple[str, str]]]) -> str:
    """Return a README with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table(states)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Update the READMEs of the named plugins, or of all."""
    for plugin in sorted(PLUGINS / name for name in sys.argv[1:]) or sorted(PLUGINS.iterdir()):
        readme = plugin / "README.md"
        if readme.is_file() and BEGIN in (text := readme.read_text(encoding="utf-8")):
            readme.write_text(with_table(text, {name: confirmed(name) for name in families(plugin)}), encoding="utf-8")


if __name__ == "__main__":
    main()
