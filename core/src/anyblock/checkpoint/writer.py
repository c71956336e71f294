"""Writing a subblock checkpoint one group at a time."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.config import CONFIG
from anyblock.checkpoint.groups import FOLDER, check_groups, group_file
from anyblock.checkpoint.header import Stamp
from anyblock.checkpoint.index import INDEX, index_bytes
from anyblock.checkpoint.json_io import json_bytes, shown
from anyblock.checkpoint.layout import PT, ordered
from anyblock.checkpoint.safetensors_writer import InMemory, Part, Stored, write_safetensors
from anyblock.checkpoint.transfer import Copier
from anyblock.contract.blocks import BlockConfig
from anyblock.errors import CheckpointError
from anyblock.progress import Advance

if TYPE_CHECKING:
    import torch

    from anyblock.checkpoint.subblocks import SubblockCheckpoint

_THREADS: Final = 4


class SubblockWriter:
    """Writes group files into a directory, then the index and the config.

    Use it inside `atomic_directory`, which makes the result appear only when it is complete.

    Args:
        directory: an existing directory, usually a temporary.
        config: the content of `config.json`; its `block_configs`, if any, are replaced.
        block_configs: one a layer.
        metadata: further metadata of every group file.
        advance: called with the bytes of tensors as they are written.
        written: called with every group file that is complete, for instance `BackgroundSync.submit`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: Mapping[str, Any],
        block_configs: Sequence[BlockConfig],
        metadata: Mapping[str, str] | None = None,
        advance: Advance = lambda _: None,
        written: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self._config = dict(config)
        self._block_configs = list(block_configs)
        self._metadata = {**PT, **(metadata or {})}
        self._advance = _serialised(advance)
        self._written = written
        self._files: dict[str, str] = {}
        self._groups: dict[str, list[str]] = {}
        self._total = 0
        (directory / FOLDER).mkdir(exist_ok=True)

    def write(self, group: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write one group from tensors; views are made contiguous one at a time.

        Raises:
            CheckpointError: the group or a tensor was written before, or has a type that the format does not have.
        """
        with Copier({}, self._advance) as copier:
            self.write_parts(group, {name: InMemory(tensor) for name, tensor in tensors.items()}, copier)

    def copy_group(self, source: SubblockCheckpoint, group: str) -> None:
        """Copy one group of a subblock checkpoint by byte ranges.

        Raises:
            CheckpointError: the source has no such group or was changed, or the group was written before.
        """
        header, file = source.header(group), source.file(group)
        with Copier({file: header.stamp}, self._advance) as copier:
            self.write_parts(group, {name: Stored(file, entry) for name, entry in header.tensors.items()}, copier)

    def write_parts(self, group: str, parts: Mapping[str, Part], copier: Copier) -> None:
        """Write one group whose tensors are stored elsewhere or in memory.

        Raises:
            CheckpointError: the group or a tensor was written before, the group is empty or cannot be a file's name,
                or a source cannot be read.
        """
        self._register(group, parts)
        self._fill(group, parts, copier)

    def copy_parts(self, groups: Mapping[str, Mapping[str, Stored]], stamps: Mapping[Path, Stamp]) -> None:
        """Write groups whose tensors are all stored elsewhere, several groups at a time.

        Args:
            groups: `{group: {tensor: where it is}}`.
            stamps: the state in which each source was checked.

        Raises:
            CheckpointError: as for `write_parts`.
        """
        for group, parts in groups.items():
            self._register(group, parts)

        def fill(group: str) -> None:
            with Copier(stamps, self._advance) as copier:
                self._fill(group, groups[group], copier)

        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "anyblock-copy") as pool:
            running = [pool.submit(fill, group) for group in groups]
            try:
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _register(self, group: str, parts: Mapping[str, Part]) -> None:
        file = group_file(group)
        if not parts:
            raise CheckpointError(
                f"the group {group} has no tensors", expected="at least one; leave out the group of a no-op"
            )
        if group in self._groups:
            raise CheckpointError(f"the group {group} is written twice", expected="every group once")
        for name in parts:
            if name in self._files:
                raise CheckpointError(
                    f"tensor {shown(name)} is in {self._files[name]} and in {file}", expected="every tensor once"
                )
        entries = {name: part.entry for name, part in parts.items()}
        self._groups[group] = ordered(entries)
        self._files.update(dict.fromkeys(parts, file))
        self._total += sum(entry.nbytes for entry in entries.values())

    def _fill(self, group: str, parts: Mapping[str, Part], copier: Copier) -> None:
        file = self.directory / group_file(group)
        write_safetensors(file, parts, copier, self._metadata)
        self._written(file)

    def finish(self, *, source: str | None = None) -> None:
        """Write the index, in an order that does not depend on that of the writing, and `config.json`.

        Args:
            source: where the model comes from (`owner/name@commit`), recorded in the index's metadata.

        Raises:
            CheckpointError: a half has no group although it is not a no-op, or has one although it is.
        """
        check_groups(self._groups, self._block_configs, str(self.directory))
        weight_map = {
            name: self._files[name] for group in sorted(self._groups, key=_natural) for name in self._groups[group]
        }
        blocks = [block.to_dict() for block in self._block_configs]
        rest = {key: value for key, value in self._config.items() if key != "block_configs"}
        config = json_bytes({**rest, "block_configs": blocks})
        (self.directory / INDEX).write_bytes(index_bytes(weight_map, self._total, config, source))
        (self.directory / CONFIG).write_bytes(config)


def _natural(group: str) -> list[str | int]:
    """Sort `block_2_ffn` before `block_10_ffn`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", group)]


def _serialised(advance: Advance) -> Advance:
    guard = threading.Lock()

    def reported(amount: int) -> None:
        with guard:
            advance(amount)

    return reported
