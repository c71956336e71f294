"""Exports for vLLM, TensorRT-LLM and ModelOpt's deployments: `nemotron-nas`, `nemotron_h_puzzle` and `anymodel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat

__all__ = ["VllmExtension"]


class VllmExtension:
    """Contributes the formats `nemotron-nas`, `nemotron_h_puzzle` and `anymodel`."""

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_vllm.anymodel import AnyModelFormat
        from anyblock_vllm.nemotron_h_puzzle import NemotronHPuzzleFormat
        from anyblock_vllm.nemotron_nas import NemotronNasFormat

        return {
            "nemotron-nas": NemotronNasFormat,
            "nemotron_h_puzzle": NemotronHPuzzleFormat,
            "anymodel": AnyModelFormat,
        }
