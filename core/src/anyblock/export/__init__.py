"""Writing a child in forms that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyblock.export.anymodel import AnyModelFormat
from anyblock.export.gguf.form import GgufFormat, GgufQ8Format
from anyblock.export.nemotron_nas import NemotronNasFormat
from anyblock.export.transformers_format import TransformersFormat

if TYPE_CHECKING:
    from anyblock.contract.export_format import ExportFormat

FORMATS: Final[dict[str, ExportFormat]] = {
    "transformers": TransformersFormat(),
    "nemotron-nas": NemotronNasFormat(),
    "anymodel": AnyModelFormat(),
    "gguf": GgufFormat(),
    "gguf-q8_0": GgufQ8Format(),
}
"""Core's own formats by name."""
