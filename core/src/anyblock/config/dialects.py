"""What core lends to dialects, and which distribution to install for a file in one that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from anyblock.config.budget import merge_entries
from anyblock.config.problems import gathered
from anyblock.config.pruning import CORE_KINDS
from anyblock.config.registry import NameRegistry, dialects, local_model_type, registry_for
from anyblock.config.schema import RunConfig
from anyblock.config.yaml_source import read_yaml
from anyblock.contract.config_dialect import ConfigDialect, DialectTools
from anyblock.contract.config_tree import KeyPath, Tree
from anyblock.contract.settings import Section
from anyblock.errors import ConfigError
from anyblock.extensions import installed_extensions
from anyblock.progress import Progress

_GUIDE: Final = """
    defaults pruning_mixin hook_class activation_hooks_kwargs descriptor puzzle_dir mip input_hf_model_path dataset_path
    build_replacement_library calc_subblock_stats realize_model
"""
GUIDE: Final = "anyblock-puzzletron-config"
"""The distribution that reads files with these keys, and replaces `${key}` in any file."""


class Tools(DialectTools):
    """What dialects get for one configuration.

    Args:
        registry: where class names are looked up; None means core, the model's family and the installed extensions.
        progress: where notes go.
    """

    def __init__(self, registry: NameRegistry | None, progress: Progress) -> None:
        self.tree = Tree()
        self._registry = registry
        self._progress = progress

    @cached_property
    def dialects(self) -> list[ConfigDialect]:
        """The installed dialects."""
        return dialects(installed_extensions())

    def read(self, path: Path) -> Tree:
        """Return a file with what it includes.

        Raises:
            ConfigError: the file cannot be used, or is in a dialect that is not installed.
        """
        tree = read_yaml(path)
        for dialect in self.dialects:
            tree = dialect.read(path, tree, self)
        found = sorted({*_GUIDE.split()} & tree.data.keys())
        if found and not any(dialect.matches(tree, self) for dialect in self.dialects):
            raise ConfigError(
                f"{tree.place((found[0],))}: a key of another tool's files, which {GUIDE} reads",
                expected="AnyBlock's own keys, or that distribution",
                hint=f"python -m pip install {GUIDE}",
            )
        return tree

    @property
    def schema(self) -> type[Section]:
        """See `DialectTools.schema`."""
        return RunConfig

    @property
    def kind_paths(self) -> Mapping[str, KeyPath]:
        """See `DialectTools.kind_paths`."""
        return {kind: ("pruning", key) for kind, key in CORE_KINDS.items()}

    def names(self) -> NameRegistry:
        """See `DialectTools.names`."""
        self._registry = self._registry or registry_for(self.tree.data)
        return self._registry

    def read_yaml(self, path: Path) -> Tree:
        """See `DialectTools.read_yaml`."""
        return read_yaml(path)

    def merge_budgets(self, entries: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
        """See `DialectTools.merge_budgets`."""
        return merge_entries(entries)

    def gathered(self, faults: Sequence[str]) -> ConfigError:
        """See `DialectTools.gathered`."""
        return gathered(faults)

    def local_model_type(self, *models: Any) -> str | None:
        """See `DialectTools.local_model_type`."""
        return local_model_type(*models)

    def note(self, message: str) -> None:
        """See `DialectTools.note`."""
        self._progress.note(message)
