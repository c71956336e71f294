"""Checkpoints on disk: read suspiciously, written atomically.

Nothing here imports torch or transformers before a tensor or a default value is asked for.
"""

from anyblock.checkpoint.atomic import atomic_directory, write_bytes_atomic, write_json_atomic
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.header import Header, TensorEntry, read_header
from anyblock.checkpoint.hub import resolve_model
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.checkpoint.writer import SubblockWriter

__all__ = [
    "Header",
    "SourceCheckpoint",
    "SubblockCheckpoint",
    "SubblockWriter",
    "TensorEntry",
    "atomic_directory",
    "config_view",
    "is_subblock_checkpoint",
    "read_config",
    "read_header",
    "resolve_model",
    "write_bytes_atomic",
    "write_json_atomic",
]
