"""What was inferred about an architecture, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.tree import Tree

if TYPE_CHECKING:
    from anyblock.introspection.facts import InferredFamily


def inferred_tree(inferred: InferredFamily) -> Tree:
    """Return the structure block by block: modules, sizes, what can be pruned and what is unknown."""
    facts = inferred.attributes
    tree = Tree(f"{inferred.model_type}: inferred on a tiny model, no adapter is installed")
    tree.add(f"embedding {facts['embedding_path']}")
    layers = tree.add(
        f"layers {facts['layers_path']} ({', '.join(name.rpartition('.')[2] for name in facts['decoder_layer'])})"
    )
    for half in ("attention", "ffn"):
        for name, kind in inferred.kinds(half).items():
            branch = layers.add(f"{half}: {name}")
            branch.add(f"tensors {', '.join(kind.names)}")
            if kind.sizes:
                branch.add(f"sizes {', '.join(f'{size} = {attribute}' for size, attribute in kind.sizes.items())}")
    if facts["other"]:
        layers.add(f"neither half: {', '.join(facts['other'])}")
    tree.add(f"final norm {facts['final_norm_path'] or 'none'}")
    tree.add(f"head {facts['head']}")
    able = [kind for call in inferred.mixins for kind in call.kinds if kind not in facts["lacking"]]
    tree.add(f"prunable: {', '.join(able) or 'nothing'}")
    if inferred.unknown:
        unknown = tree.add("not worked out")
        for line in inferred.unknown:
            unknown.add(escape(line))
    return tree
