"""GGUF export for AnyBlock: one file that llama.cpp runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat

__all__ = ["GgufExtension"]


class GgufExtension:
    """Contributes the format `gguf`."""

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_gguf.form import GgufFormat

        return {"gguf": GgufFormat}
