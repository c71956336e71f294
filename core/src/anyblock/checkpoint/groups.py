"""The groups of a subblock checkpoint: their names, their files, and how they go with the block configs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from anyblock.checkpoint.json_io import shown
from anyblock.contract.blocks import HALVES, BlockConfig, group_name, layer_of
from anyblock.errors import CheckpointError

FOLDER: Final = "subblocks_safetensors"
NOT_LOADED: Final = frozenset({"multi_token_prediction", "rotary_buffers"})
"""Extra groups that are kept with a model and are no part of it, so that they are neither loaded nor counted: what
predicts further tokens, and rotary frequencies that old files have in every layer. transformers leaves both out."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def group_file(group: str) -> str:
    """Return the name of a group's file relative to the checkpoint.

    Raises:
        CheckpointError: the group's name cannot be a file name.
    """
    if not _NAME.fullmatch(group):
        raise CheckpointError(
            f"{shown(group)} cannot be the name of a group",
            expected="letters, digits, '_', '-' and '.', at most 100, '.' not in front",
        )
    return f"{FOLDER}/{group}.safetensors"


def group_of(file: str) -> str | None:
    """Return the group whose file has this relative name; None for any other file."""
    folder, _, name = file.rpartition("/")
    group = name.removesuffix(".safetensors")
    return group if folder == FOLDER and name.endswith(".safetensors") and _NAME.fullmatch(group) else None


def half_groups(block_configs: Sequence[BlockConfig]) -> Iterator[tuple[str, bool]]:
    """Yield `(group, no_op)` for both halves of every block."""
    for index, block in enumerate(block_configs):
        yield from ((group_name(index, half), block.half(half).no_op) for half in HALVES)


def check_groups(groups: Collection[str], block_configs: Sequence[BlockConfig], where: str) -> None:
    """Check that exactly the halves that are not no-ops have a group, and that there are embeddings.

    Args:
        groups: the groups that hold tensors.
        block_configs: one a layer.
        where: names the checkpoint in an error.

    Raises:
        CheckpointError: naming the first group that is missing, or that should not be there.
    """
    present = set(groups)
    for group, no_op in half_groups(block_configs):
        if no_op and group in present:
            raise CheckpointError(
                f"{where} holds tensors of {group}, whose block config says no_op", expected="no tensors for a no-op"
            )
        if not no_op and group not in present:
            raise CheckpointError(
                f"{where} holds no tensors of {group}, whose block config is not a no_op",
                expected="a group for every half",
            )
    for group in sorted(present):
        layer = layer_of(group)
        if layer is not None and layer >= len(block_configs):
            raise CheckpointError(
                f"{where} holds tensors of {group}", expected=f"{len(block_configs)} layers, as there are block configs"
            )
    if "embeddings" not in present:
        raise CheckpointError(f"{where} holds no tensors of the group embeddings", expected="the input embedding")
