"""Print the structure of core: lines per room, cycles between files, imports that climb, and what plugins import.

python core/scripts/structure.py [--check]

Imports count wherever they stand: at the top, inside functions, and for types alone. The order of rooms is that of the contract
`layers` in the root pyproject.toml. With `--check` a cycle, a climb, a room or a core that is too long, or a plugin that imports
anything but the contract is an error.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "core" / "src" / "anyblock"
PUBLIC: Final = ("anyblock.contract", "anyblock.descriptors", "anyblock.errors")
"""What adapters and extensions may import."""
MAX_CORE: Final = 33_225
MAX_ROOM: Final = 3_600
"""Ceilings that keep core from growing; lower them when it shrinks. The goal is 23,000 lines, and 2,500 a room."""


def modules() -> dict[str, Path]:
    """Return every file of core by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, package: str = "") -> Iterator[str]:
    """Yield every dotted name that a file imports, wherever in the file; relative imports are resolved in `package`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """Return which files of core each file imports."""
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = {target for target in imported(path, package) if target in known and target != name}
        # `from anyblock.room import thing` names the package only if `thing` is not a file of its own.
        graph[name] -= {
            target for target in graph[name] if any(other.startswith(f"{target}.") for other in graph[name])
        }
    return graph


def room_of(name: str) -> str:
    """Return the room of a file: the folder or the file directly below the package."""
    return name.split(".")[1] if "." in name else "__init__"


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected groups of more than one file (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        """Number `name` and whatever it reaches, and take a finished group off the stack."""
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found)


def layers() -> list[list[str]]:
    """Return the rooms, from the top down, as the contract lists them; rooms on one line are independent of one another."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [found for found in settings["tool"]["importlinter"]["contracts"] if found["type"] == "layers"]
    return [[room.strip() for room in line.replace("|", ":").split(":")] for line in contract["layers"]]


def climbs(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return every import from a room into one on the same line or above; `anyblock/__init__.py` is above all."""
    level = {room: number for number, line in enumerate(layers()) for room in line} | {"__init__": -1}
    found = []
    for name, targets in graph.items():
        for target in targets:
            here, there = room_of(name), room_of(target)
            if here != there and level.get(there, -1) <= level.get(here, -1) and here != "__init__":
                found.append((name, target))
    return sorted(found)


def plugin_imports() -> Counter[str]:
    """Return what the distributions in `plugins/` import of core, with the number of files that do.

    `new-family` is left out: it builds, traces and prunes models with core's own tools, and follows core version by version.
    """
    found: Counter[str] = Counter()
    for path in sorted((ROOT / "plugins").glob("*/*/src/**/*.py")):
        if "new-family" in path.parts:
            continue
        names = {name for name in imported(path) if name.split(".")[0] == "anyblock"}
        found.update(name for name in names if not any(other.startswith(f"{name}.") for other in names))
    return found


def main() -> None:
    """Print it all; exit with 1 with `--check` when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is not kept")
    options = parser.parse_args()
    known = modules()
    graph = imports(known)
    lines: dict[str, int] = defaultdict(int)
    for name, path in known.items():
        lines[room_of(name)] += len(path.read_text(encoding="utf-8").splitlines())
    total = sum(lines.values())
    print(f"core: {total} lines in {len(known)} files (at most {MAX_CORE})")
    for room, count in sorted(lines.items(), key=lambda item: -item[1]):
        print(f"  {count:6}  {room}")
    circles = cycles(graph)
    print(f"cycles between files: {len(circles)}")
    for circle in circles:
        print(f"  {len(circle)} files: {', '.join(circle)}")
    upwards = climbs(graph)
    print(f"imports that climb: {len(upwards)}")
    for source, target in upwards:
        print(f"  {source} -> {target}")
    taken = plugin_imports()
    outside = {name: count for name, count in taken.items() if not name.startswith(PUBLIC)}
    print(f"names of core that plugins import: {len(taken)}, of these outside the contract: {len(outside)}")
    for name, count in sorted(outside.items()):
        print(f"  {name} ({count} files)")
    too_long = [room for room, count in lines.items() if count > MAX_ROOM]
    if options.check and (circles or upwards or outside or too_long or total > MAX_CORE):
        sys.exit("the structure does not hold, see above")


if __name__ == "__main__":
    main()
