"""What an export format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


class ExportFormat(ABC):
    """A form of checkpoint that some tool reads.

    Class attributes:
        summary: one line for `anyblock export --help`: which tools read it.
        types: the types in which weights can be stored, the usual one first; empty when they stay as they are.
    """

    summary: ClassVar[str]
    types: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def obstacles(self, child: SubblockCheckpoint, family: ModelFamily) -> list[str]:
        """Return why this child cannot be expressed in the format, one reason an entry; empty when it can."""

    @abstractmethod
    def write(self, child: SubblockCheckpoint, family: ModelFamily, directory: Path) -> None:
        """Write the child into an existing, empty directory; `obstacles` is empty."""

    def write_as(self, child: SubblockCheckpoint, family: ModelFamily, directory: Path, weight_type: str) -> None:
        """Write as `write` does, with weights stored as one of `types`; a format that has any overrides this."""
        raise NotImplementedError(f"{type(self).__name__} lists {self.types} and has no write_as")
