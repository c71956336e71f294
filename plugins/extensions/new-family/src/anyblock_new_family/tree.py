"""What was inferred about an architecture, as a tree."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from anyblock.contract.blocks import HALVES
from anyblock.report.table import attention_text, ffn_text
from rich.markup import escape
from rich.tree import Tree

if TYPE_CHECKING:
    from anyblock.descriptors import Size
    from anyblock.family import ModelFamily

    from anyblock_new_family.introspection.facts import InferredFamily


def inferred_tree(inferred: InferredFamily, family: ModelFamily, config: Any) -> Tree:
    """Return the structure: modules, every block with its sizes and what it can lose, and what is unknown.

    Args:
        inferred: what was found out.
        family: the handle on it.
        config: the Hugging Face configuration of the model whose blocks are shown.
    """
    facts = inferred.attributes
    tree = Tree(f"{inferred.model_type}: inferred on a tiny model, no adapter is installed")
    tree.add(f"embedding {family.input_embedding_name()}")
    classes = ", ".join(cls.__name__ for cls in family.decoder_layer_cls())
    layers = tree.add(f"layers {family.layer_block_name(0).removesuffix('.0')} ({classes})")
    for half in HALVES:
        for name, kind in inferred.kinds(half).items():
            branch = layers.add(f"{half}: {name}")
            branch.add(f"tensors {', '.join(kind.names)}")
            if kind.sizes:
                branch.add(f"sizes {', '.join(f'{name} = {_size_text(size)}' for name, size in kind.sizes.items())}")
    if facts["other"]:
        layers.add(f"neither half: {', '.join(facts['other'])}")
    _add_blocks(layers, family, config)
    tree.add(f"final norm {family.final_norm_name() or 'none'}")
    tree.add(f"head {family.output_embedding_name()}")
    able = [name for name, capability in family.capabilities().items() if capability]
    tree.add(f"can: {', '.join(able) or 'nothing'}")
    if inferred.unknown:
        unknown = tree.add("not worked out")
        for line in inferred.unknown:
            unknown.add(escape(line))
    return tree


def _size_text(size: Size) -> str:
    text = size.attribute + (f" * {size.times}" if size.times != 1 else "") + (f" / {size.per}" if size.per > 1 else "")
    return f"{text} or {_size_text(size.default)}" if size.default else text


def _add_blocks(tree: Tree, family: ModelFamily, config: Any) -> None:
    """Add a branch for every run of equal blocks, with what each half of them can lose."""
    text, mixins = family.language_model_config(config), family.pruning_mixins()
    for block, run in groupby(enumerate(family.create_block_configs(config)), key=lambda pair: pair[1]):
        indices = [index for index, _ in run]
        span = f"block {indices[0]}" if len(indices) == 1 else f"blocks {indices[0]}-{indices[-1]}"
        branch = tree.add(span)
        halves = {"attention": attention_text(block.attention, block.attention), "ffn": ffn_text(block.ffn, block.ffn)}
        for half, shown in halves.items():
            losses = ["the whole half"] if family.supports(f"{half}_no_op") and not block.half(half).no_op else []
            for kind, mixin in mixins.items():
                if mixin.half == half and mixin.applies_to(block) and family.supports(kind):
                    sizes = sorted(size for size in mixin.legal_sizes(block, text) if size < mixin.size(block))
                    losses += [f"{kind} down to {sizes[0]} of {mixin.size(block)}"] if sizes else []
            branch.add(f"{half} {shown}; can lose: {', '.join(losses) or 'nothing'}")
