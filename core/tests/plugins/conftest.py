"""A folder of hand-written distributions, as conda's tests have one: metadata and modules, without pip."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyblock.plugins import PluginRegistry, PluginSettings

GOOD = """
from anyblock.descriptors import DenseDescriptor
from anyblock.contract.hookspecs import hookimpl


class Descriptor(DenseDescriptor):
    decoder_layer = "torch.nn.Identity"
"""


class Site:
    """One folder on the path, like `site-packages`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def distribution(
        self,
        name: str,
        version: str = "1.0",
        *,
        families: dict[str, str] | None = None,
        extensions: dict[str, str] | None = None,
        requires: tuple[str, ...] = ("anyblock>=0.1,<1",),
        metadata: str | None = None,
        entry_points: str | None = None,
        folder: str | None = None,
    ) -> Path:
        """Write a `.dist-info`; `metadata` and `entry_points` replace the whole file."""
        info = self.root / (folder or f"{name.replace('-', '_')}-{version}.dist-info")
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n" if metadata is None else metadata, encoding="utf-8")
        text = entry_points
        if text is None:
            groups = {"anyblock.families": families, "anyblock.extensions": extensions}
            text = ""
            for group, entries in groups.items():
                if entries:
                    text += f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        if text:
            (info / "entry_points.txt").write_text(text, encoding="utf-8")
        return info

    def module(self, name: str, source: str = GOOD) -> Path:
        """Write a module, or a file inside a package when the name has a slash."""
        path = self.root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path

    def found(self) -> list[importlib.metadata.Distribution]:
        """Return the distributions in this folder alone."""
        return list(importlib.metadata.distributions(path=[str(self.root)]))

    def registry(self, settings: PluginSettings | None = None, **options: object) -> PluginRegistry:
        """Discover what is in this folder alone; settings default to none, whatever the environment says."""
        return PluginRegistry.discover(
            settings or PluginSettings(), found=self.found(), core_version="0.1.0", **options
        )  # type: ignore[arg-type]

    def python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run another interpreter that has this folder on its path, before everything else."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANYBLOCK_")}
        env = {**inherited, "PYTHONPATH": str(self.root), "COLUMNS": "200", **environ}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder at the head of `sys.path`; what is imported from it is forgotten afterwards."""
    site = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site.root))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def zoo() -> Path:
    """The folder of deliberately bad plugins; each file is named by its fault."""
    return Path(__file__).parent / "zoo"
