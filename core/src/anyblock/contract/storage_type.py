"""`StorageType`: how a file stores the numbers of a tensor, and in how many bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.blocks import Half
from anyblock.errors import ConfigError

if TYPE_CHECKING:
    import torch

STORAGE: Final = "anyblock_storage"
"""Where a child's `config.json` has the types that the search chose: `{"format": name, "types": {group: type}}`."""


class StorageType(ABC):
    """One storage type of one export format. A run searches types of one format. Since 0.2.

    A tensor that the type cannot store (a vector, rows that its blocks do not divide) is stored in another one, which the type
    names and counts as well.

    Attributes:
        summary: one line.
        format: the export format whose files have it.
        plain: the type of that format in which the teacher's file counts, where a budget is a share of it.
        usual: whether it is offered where a run names no types.
    """

    summary: str
    format: str
    plain: str
    usual: bool = False

    @abstractmethod
    def stored_as(self, name: str, shape: Sequence[int]) -> str:
        """Return the name of the type in which a tensor (its checkpoint name and shape) is really stored."""

    @abstractmethod
    def nbytes(self, name: str, shape: Sequence[int]) -> int:
        """Return how many bytes the numbers of a tensor take, exactly."""

    @abstractmethod
    def rounded(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return what is read back from a file, float32 in the tensor's shape. Equal inputs give equal bytes.

        Raises:
            UsageError: what rounds is not installed; it is tried before the work begins.
        """

    def expresses(self, model_type: str, changes: Collection[str]) -> bool:
        """Return whether layers in a file can differ in attributes of the configuration; `no_op` and `linear` stand for a half."""
        return True

    def frame(self, model: Path, config: Any, layers: int) -> int:
        """Return how many bytes a file has besides the numbers of its tensors, at most.

        Raises:
            UnsupportedModelError: the format cannot hold a model of this configuration, or the tokenizer in its folder.
        """
        return 0

    def removed(self, layer: int, half: Half, config: Any) -> int:
        """Return how many bytes a file has at most where a half is removed."""
        return 0


def chosen_types(config: Mapping[str, Any], format_name: str) -> dict[str, str]:
    """Return `{group: type}` as the search chose them for a format, from a child's `config.json`; empty where it chose none.

    Raises:
        ConfigError: the entry is malformed.
    """
    stated = config.get(STORAGE, {"format": "", "types": {}})
    types = stated.get("types") if isinstance(stated, dict) else None
    if not isinstance(types, dict) or not all(
        isinstance(name, str) for name in (*types.values(), stated.get("format"))
    ):
        raise ConfigError(f"{STORAGE} in config.json is malformed", expected="format, and types by group")
    return types if stated["format"] == format_name else {}
