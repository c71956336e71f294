"""Children of subblock checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from anyblock.checkpoint.atomic import atomic_directory
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.writer import SubblockWriter


def child_without(
    teacher_dir: Path, target: Path, *, attention: Collection[int] = (), ffn: Collection[int] = ()
) -> Path:
    """Write the child of a subblock checkpoint that lacks these layers' attentions and ffns; return `target`."""
    teacher = SubblockCheckpoint.open(teacher_dir)
    blocks = list(teacher.block_configs)
    for index in attention:
        blocks[index] = blocks[index].with_attention(no_op=True)
    for index in ffn:
        blocks[index] = blocks[index].with_ffn(no_op=True)
    gone = {f"block_{i}_attention" for i in attention} | {f"block_{i}_ffn" for i in ffn}
    with atomic_directory(target) as work:
        writer = SubblockWriter(work, config=teacher.config, block_configs=blocks)
        for group in teacher.groups:
            if group not in gone:
                writer.copy_group(teacher, group)
        writer.finish()
    return target
