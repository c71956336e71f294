"""Composition: the `defaults` list of a configuration, read as Hydra does."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyblock.contract.config_dialect import DialectTools
from anyblock.contract.config_tree import Tree
from anyblock.errors import ConfigError

MAX_FILES: Final = 64
"""Most files that one configuration is put together from."""
Package = tuple[str, ...]
"""The keys below which a file's content goes."""
LEVELS_ABOVE: Final = 3
"""How far above the main file an included file may be; the reference's own main files lie two levels deep."""
_HEADER: Final = re.compile(r"#\s*@package\s+(\S+)")
_ENTRY: Final = re.compile(r"(?:(?P<modifier>optional|override)\s+)?(?P<path>[\w./-]+)(?:@(?P<package>[\w.]+))?")


def compose(path: Path, tools: DialectTools) -> Tree:
    """Read a file together with the files that its `defaults` list names.

    The list has entries `NAME`, `GROUP: NAME` and `_self_` (last when it is not there), with or without `@PACKAGE`;
    later ones win. The content of `GROUP: NAME` goes below the key `GROUP`. Names are relative to the file they stand
    in; a leading `/` means the main file's folder. What is not there is looked for in the folders above, since the main file
    may lie deep in the folder that Hydra is given.

    Raises:
        ConfigError: an entry has another form, includes itself, is missing, or lies outside the main file's folder.
    """
    return _Composer(path.parent, tools).read(path, group="", package=(), above=())


@dataclass(frozen=True)
class _Entry:
    path: str
    """Below the main file's folder, normalised, without the suffix."""
    package: Package
    is_package_given: bool
    is_optional: bool
    place: str


class _Composer:
    def __init__(self, root: Path, tools: DialectTools) -> None:
        self.root = root
        self.tools = tools
        self.files = 0

    def read(self, file: Path, *, group: str, package: Package, above: tuple[Path, ...]) -> Tree:
        """Return a file's keys below its package, over those of the files in its defaults list.

        Raises:
            ConfigError: the lists form a circle, are too many, or a file cannot be used.
        """
        self.files += 1
        if file in above or self.files > MAX_FILES:
            raise ConfigError(
                f"{file}: includes itself or more than {MAX_FILES} files", expected="a defaults list that ends"
            )
        own = self.tools.read_yaml(file)
        entries = own.data.pop("defaults", None) or []
        if not isinstance(entries, list):
            raise ConfigError(f"{own.place(('defaults',))} is a {type(entries).__name__}", expected="a list")
        content = Tree(own.data, {key: line for key, line in own.origins.items() if key[:1] != ("defaults",)})
        whole = Tree()
        for index, entry in enumerate([*entries, *([] if "_self_" in entries else ["_self_"])]):
            if entry == "_self_":
                whole.merge(content.nested(package))
                continue
            place = own.origin(("defaults", index))
            for included in self._parse(entry, group, package, place):
                self._include(included, whole, (*above, file))
        return whole

    def _parse(self, entry: Any, group: str, package: Package, place: str) -> Iterator[_Entry]:
        pairs = list(entry.items()) if isinstance(entry, dict) else [(entry, "")]
        key, names = pairs[0] if len(pairs) == 1 else (None, None)
        match = _ENTRY.fullmatch(key) if isinstance(key, str) else None
        if match is None or not all(isinstance(name, str | None) for name in _listed(names)):
            raise ConfigError(f"{place}: the defaults entry {entry!r}", expected="NAME, GROUP: NAME, or _self_")
        if match["modifier"] == "override":
            self.tools.note(f"{place}: accepted without effect: override {match['path']}")
            return
        for name in _listed(names):
            if name is None:
                continue
            written = posixpath.join(match["path"], name) if name else match["path"]
            own_group = match["path"] if name else posixpath.dirname(match["path"])
            yield _Entry(
                path=self._below_root(group, written, place),
                package=_package(match["package"], own_group, package),
                is_package_given=match["package"] is not None,
                is_optional=match["modifier"] == "optional",
                place=place,
            )

    def _below_root(self, group: str, written: str, place: str) -> str:
        start = written.lstrip("/") if written.startswith("/") else posixpath.join(group, written)
        path = posixpath.normpath(start)
        if path.startswith("..") or path == ".":
            raise ConfigError(f"{place}: {written!r} is outside {self.root}", expected="a file below that folder")
        return path.removesuffix(".yaml")

    def _include(self, entry: _Entry, whole: Tree, above: tuple[Path, ...]) -> None:
        name = f"{entry.path}.yaml"
        places = (self.root, *self.root.absolute().parents[:LEVELS_ABOVE])
        root = next((place for place in places if (place / name).is_file()), self.root)
        file = root / name
        if not file.is_file():
            if entry.is_optional:
                return
            raise ConfigError(
                f"{entry.place}: there is no {file}", expected="a file that the defaults entry can include"
            )
        if not file.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{entry.place}: {file} leads outside {root}", expected="a file below that folder")
        package = entry.package
        header = _HEADER.match(file.read_text(encoding="utf-8", errors="replace")[:200])
        if header and not entry.is_package_given:
            package = _package(header[1], posixpath.dirname(entry.path), ())
        whole.merge(self.read(file, group=posixpath.dirname(entry.path), package=package, above=above))


def _listed(names: Any) -> list[Any]:
    return names if isinstance(names, list) else [names]


def _package(given: str | None, group: str, parent: Package) -> Package:
    """Return the keys below which a file goes: what `@PACKAGE` says, or its group below the including file's keys."""
    if given == "_global_":
        return ()
    if given == "_here_":
        return parent
    if given not in (None, "_group_"):
        return (*parent, *str(given).split("."))
    return (*parent, *(part for part in group.split("/") if part not in ("", ".", "..")))
