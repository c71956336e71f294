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
        summary: one line: which tools read it.
    """

    summary: ClassVar[str]

    @abstractmethod
    def obstacles(self, child: SubblockCheckpoint, family: ModelFamily) -> list[str]:
        """Return why this child cannot be expressed in the format, one reason an entry; empty when it can."""

    @abstractmethod
    def write(self, child: SubblockCheckpoint, family: ModelFamily, directory: Path) -> None:
        """Write the child into an existing, empty directory; `obstacles` is empty."""
