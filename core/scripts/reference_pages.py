"""The pages of the reference that are made when the site is built: every command's help, and every hook.

python core/scripts/reference_pages.py prints both.
"""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Iterator

from anyblock.cli import app
from anyblock.cli.external import KNOWN
from anyblock.contract.hookspecs import FamilySpec
from anyblock.contract.kinds import KINDS
from typer.testing import CliRunner

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")


def pages() -> dict[str, str]:
    """Return the text of every page by its place in the site."""
    return {"reference/commands.md": commands_page(), "reference/hooks.md": hooks_page()}


def commands() -> list[str]:
    """Return the name of every command, core's own and those of known or installed distributions."""
    shown = _help()
    listed = re.findall(r"^[ │]+([a-z][a-z-]+)  ", shown[shown.index("Commands") :], re.MULTILINE)
    return sorted({*listed, *KNOWN})


def commands_page() -> str:
    """Return the page with the help of every command; one that is not installed here is named with its distribution."""
    parts = [
        "# Commands",
        "What `--help` prints. Commands of other distributions say which one they come with.",
        _block(_help()),
    ]
    for name in commands():
        parts.append(f"## anyblock {name}")
        done = _run(name, "--help")
        if done is None:
            distribution, summary = KNOWN[name]
            parts.append(f"{summary} Comes with `{distribution}`.")
        else:
            parts.append(_block(done))
    return "\n\n".join(parts) + "\n"


def hooks_page() -> str:
    """Return the page with the signature and the docstring of every hook."""
    parts = [
        "# Hooks",
        "Every hook that core calls, from `anyblock.contract.hookspecs.FamilySpec`. [The contract](../contract.md) has examples, "
        "and [Extending](../extending.md) says which class belongs to which hook.",
        "| kind | hook | class | what it is for |\n|---|---|---|---|\n"
        + "\n".join(f"| `{k.name}` | `{k.hook}` | `{k.base}` | {k.summary} |" for k in KINDS.values()),
    ]
    for name, function in hooks():
        signature = str(inspect.signature(function)).replace("(self, ", "(").replace("(self)", "()")
        parts += [f"## {name}", f"```python\n{name}{signature}\n```", _markdown(inspect.getdoc(function) or "")]
    return "\n\n".join(parts) + "\n"


def hooks() -> list[tuple[str, object]]:
    """Return every hook of `FamilySpec` by name, in its order."""
    return [(name, value) for name, value in vars(FamilySpec).items() if inspect.isfunction(value)]


def _help() -> str:
    shown = _run("--help")
    assert shown is not None
    return shown


def _run(*arguments: str) -> str | None:
    environment = {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        done = CliRunner().invoke(app, list(arguments), env=environment)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n") if done.exit_code == 0 else None


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _markdown(doc: str) -> str:
    """Return a docstring as Markdown: its sections as bold words, and what they list as a list."""
    return "\n".join(_lines(doc)).strip()


def _lines(doc: str) -> Iterator[str]:
    inside = False
    for line in doc.splitlines():
        if found := _SECTION.match(line):
            inside = found.group(1) in ("Args", "Raises")
            yield from ("", f"**{found.group(1)}**", "")
        elif inside and re.match(r"    \w[\w, *|.`]*: ", line):
            name, _, rest = line.strip().partition(": ")
            yield f"- `{name}`: {rest}"
        else:
            yield textwrap.dedent(line) if not inside else f"  {line.strip()}"


if __name__ == "__main__":
    print("\n".join(pages().values()))
