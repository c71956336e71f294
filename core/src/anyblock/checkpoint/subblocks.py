"""Reading a subblock checkpoint."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.config import CONFIG, read_config
from anyblock.checkpoint.files import inside, plain_directory
from anyblock.checkpoint.fingerprint import content_fingerprint
from anyblock.checkpoint.groups import FOLDER, NOT_LOADED, check_groups, group_file, group_of
from anyblock.checkpoint.header import Header, TensorEntry, read_header
from anyblock.checkpoint.index import INDEX, SINGLE, check_against_index, read_index
from anyblock.checkpoint.json_io import shown
from anyblock.contract.blocks import BlockConfig, block_configs_from_json
from anyblock.errors import CheckpointError, ConfigError, nearest

if TYPE_CHECKING:
    import torch


def is_subblock_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether a directory's weights are those of a subblock checkpoint; the files are not checked.

    Raises:
        CheckpointError: the index is damaged, or there are two models and nothing says which one is newer.
    """
    folder = Path(path)
    if not ((folder / FOLDER).is_dir() and (folder / CONFIG).is_file()):
        return False
    weight_map = read_index(folder)
    if weight_map is None:
        return not os.path.lexists(folder / SINGLE)
    return any(file.startswith(f"{FOLDER}/") for file in weight_map.values())


class SubblockCheckpoint:
    """A subblock checkpoint on disk.

    `open` checks the index and the files' presence; a group's header is checked when the group is first used.

    Attributes:
        path: the directory.
        config: the content of `config.json` without `block_configs`.
        block_configs: one a layer.
        groups: `{group: (tensor, ...)}` as the index lists them.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        block_configs: list[BlockConfig],
        groups: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.path = path
        self.config = config
        self.block_configs = block_configs
        self.groups = dict(groups)
        self._headers: dict[str, Header] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SubblockCheckpoint:
        """Open a subblock checkpoint.

        Raises:
            ConfigError: `config.json` is unusable, or has no or wrong `block_configs`.
            CheckpointError: the index is damaged or leads elsewhere; a file is missing, not in the index, or belongs
                to a no-op.
        """
        folder = plain_directory(path)
        config = read_config(folder)
        if "block_configs" not in config:
            raise ConfigError(
                f"{folder / CONFIG} has no block_configs",
                expected="a subblock checkpoint",
                hint=_convert(folder),
            )
        blocks = block_configs_from_json(config.pop("block_configs"), where=f"{folder / CONFIG}: block_configs")
        groups = _read_groups(folder)
        check_groups(groups, blocks, str(folder))
        _check_files(folder, groups)
        return cls(folder, config, blocks, groups)

    @property
    def model_groups(self) -> list[str]:
        """The groups that the model is made of; others are kept and not loaded (`groups.NOT_LOADED`)."""
        return [group for group in self.groups if group not in NOT_LOADED]

    def file(self, group: str) -> Path:
        """Return a group's file, which `open` has found in the checkpoint's own folder.

        Raises:
            CheckpointError: there is no such group.
        """
        if group not in self.groups:
            raise CheckpointError(
                f"{self.path} has no group {shown(group)}",
                expected="one of its groups",
                hint=nearest(group, self.groups),
            )
        return self.path / group_file(group)

    def header(self, group: str) -> Header:
        """Return the checked header of a group's file.

        Raises:
            CheckpointError: the file is damaged or does not hold what the index lists.
        """
        if group not in self._headers:
            file = self.file(group)
            header = read_header(file)
            check_against_index(file, header.tensors, self.groups[group], self.path / INDEX)
            self._headers[group] = header
        return self._headers[group]

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return {name: group for group, names in self.groups.items() for name in names}

    def group(self, name: str) -> str:
        """Return the group that holds a tensor.

        Raises:
            CheckpointError: no group holds it.
        """
        if name not in self._group_of:
            raise CheckpointError(f"{self.path} has no tensor {shown(name)}", hint=nearest(name, self._group_of))
        return self._group_of[name]

    def entry(self, name: str) -> TensorEntry:
        """Return a tensor's type, shape and place.

        Raises:
            CheckpointError: there is no such tensor, or its file is damaged.
        """
        return self.header(self.group(name)).tensors[name]

    def load(
        self, group: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> dict[str, torch.Tensor]:
        """Return a group's tensors.

        On the CPU and without `dtype` they are views of the mapped file: nothing is read before it is used, and
        writing to one changes this process's copy only.

        Args:
            group: the group's name.
            device: where the tensors go.
            dtype: convert floating-point tensors of 16 bits and more to this type.

        Raises:
            CheckpointError: there is no such group, or its file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        names = self.header(group).tensors
        try:
            with safe_open(self.file(group), framework="pt", device=str(device)) as handle:
                tensors = {name: handle.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.file(group)} cannot be loaded: {error}") from error
        if dtype is None:
            return tensors
        return {name: tensor.to(dtype) if _is_castable(tensor) else tensor for name, tensor in tensors.items()}

    def meta(self, group: str) -> dict[str, torch.Tensor]:
        """Return a group's tensors on the meta device: shapes and types without data."""
        return {name: entry.meta() for name, entry in self.header(group).tensors.items()}

    def fingerprint(self, cache: Path | None = None) -> str:
        """Return a hash (hex) of the config, the block configs and every group's bytes, wherever the checkpoint lies.

        Args:
            cache: a JSON file that remembers the files' hashes between processes.
        """
        document = {"config": self.config, "block_configs": [block.to_dict() for block in self.block_configs]}
        return content_fingerprint(document, {group: self.file(group) for group in self.groups}, cache)


def _read_groups(folder: Path) -> dict[str, tuple[str, ...]]:
    weight_map = read_index(folder)
    if weight_map is None:
        raise CheckpointError(
            f"{folder} has no {INDEX}, or {SINGLE} is newer", expected=f"an index of {FOLDER}", hint=_convert(folder)
        )
    groups: dict[str, list[str]] = defaultdict(list)
    for name, target in weight_map.items():
        group = group_of(target)
        if group is None:
            raise CheckpointError(
                f"{folder / INDEX}: tensor {shown(name)} is said to be in {shown(target)}",
                expected=f"{FOLDER}/<group>.safetensors",
                hint=_convert(folder),
            )
        groups[group].append(name)
    return {group: tuple(names) for group, names in groups.items()}


def _convert(folder: Path) -> str:
    return f"convert it first: anyblock convert {folder} OUT"


def _check_files(folder: Path, groups: Mapping[str, tuple[str, ...]]) -> None:
    for group in groups:
        file = inside(folder, group_file(group), named_by=INDEX)
        if not file.exists():
            raise CheckpointError(f"{file} is missing; {INDEX} names it", hint="convert the model again")
    for entry in sorted((folder / FOLDER).iterdir()):
        if entry.name.endswith(".safetensors") and entry.name.removesuffix(".safetensors") not in groups:
            raise CheckpointError(
                f"{entry} is not in {INDEX}", expected="an index that names every file", hint="convert the model again"
            )


def _is_castable(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() >= 2
