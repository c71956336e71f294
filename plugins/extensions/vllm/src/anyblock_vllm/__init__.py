"""Exports for vLLM, TensorRT-LLM and ModelOpt's deployments: `nemotron-nas` and `anymodel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat

__all__ = ["VllmExtension"]


class VllmExtension:
    """Contributes the formats `nemotron-nas` and `anymodel`."""

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_vllm.anymodel import AnyModelFormat
        from anyblock_vllm.nemotron_nas import NemotronNasFormat

        return {"nemotron-nas": NemotronNasFormat, "anymodel": AnyModelFormat}
