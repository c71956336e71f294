"""The dialect itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from anyblock.contract.config_dialect import ConfigDialect, DialectTools, Names, Role
from anyblock.contract.config_tree import Tree

from anyblock_puzzletron_config.aliases import REFERENCE_FAMILIES, is_ignored_reference, reference_alias
from anyblock_puzzletron_config.compose import compose
from anyblock_puzzletron_config.interpolation import is_final, resolve
from anyblock_puzzletron_config.translate import has_guide_keys, translate


class PuzzletronDialect(ConfigDialect):
    """The files of the AnyModel guide and of NVIDIA ModelOpt's Puzzletron."""

    summary: ClassVar[str] = (
        "files of the AnyModel guide and of NVIDIA ModelOpt's Puzzletron, with Hydra's defaults lists; `${other.key}` in any "
        "file"
    )

    def read(self, path: Path, tree: Tree, tools: DialectTools) -> Tree:
        """See `ConfigDialect.read`: the `defaults` list, as Hydra composes it."""
        return compose(path, tools) if "defaults" in tree.data else tree

    def matches(self, tree: Tree, tools: DialectTools) -> bool:
        """See `ConfigDialect.matches`: the guide's keys, or an interpolation in a configuration that has none of them."""
        return has_guide_keys(tree, tools) or not is_final(tree.data)

    def translate(self, tree: Tree, tools: DialectTools) -> Tree:
        """See `ConfigDialect.translate`."""
        if has_guide_keys(tree, tools):
            return translate(tree, tools)
        return Tree(resolve(tree, resolvers={"get_object": lambda name: tools.names().any(str(name))}), tree.origins)

    def family_of(self, data: Mapping[str, Any]) -> str | None:
        """See `ConfigDialect.family_of`: `descriptor`, or else the model at `input_hf_model_path`."""
        named = data.get("descriptor")
        return REFERENCE_FAMILIES.get(str(named), str(named)) if named else None

    def alias(self, role: Role, name: str, names: Names) -> str | None:
        """See `ConfigDialect.alias`."""
        return reference_alias(role, name, names)

    def ignores(self, name: str) -> bool:
        """See `ConfigDialect.ignores`."""
        return is_ignored_reference(name)
