"""GGUF export for AnyBlock: one file that llama.cpp runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.storage_type import StorageType

__all__ = ["GgufExtension"]


class GgufExtension:
    """Contributes the format `gguf` and its storage types."""

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_gguf.form import GgufFormat

        return {"gguf": GgufFormat}

    @hookimpl
    def storage_types(self) -> dict[str, StorageType]:
        """See `FamilySpec.storage_types`."""
        from anyblock_gguf.types import TYPES, GgufType

        return {name: GgufType(name) for name in TYPES}
