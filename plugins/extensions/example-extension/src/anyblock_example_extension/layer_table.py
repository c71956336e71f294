"""An export format: the child's sizes as a table that a spreadsheet reads."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar, Literal

from anyblock.contract.export_format import Child, ExportFormat
from anyblock.contract.settings import Section
from anyblock.contract.storage_type import chosen_types
from pydantic import Field

FILE = "layers.csv"


class LayerTableSettings(Section):
    """Settings of the format `layer-table`."""

    separator: Literal[",", ";", "\t"] = Field(default=",", description="What stands between two columns.")


class LayerTable(ExportFormat):
    """One line per layer: its index, the number of weights in its attention and in its ffn, and the types if some were chosen."""

    summary: ClassVar[str] = "a table of the layers' sizes for spreadsheets, without weights"
    settings: ClassVar[type[Section]] = LayerTableSettings

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: every child has sizes."""
        return []

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        with (directory / FILE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter=self.settings_given.separator)
            types = chosen_types(child.config, "layer-table")
            table.writerow(["layer", "attention", "ffn", *(["attention type", "ffn type"] if types else [])])
            for layer in range(len(child.block_configs)):
                groups = [child.groups.get(f"block_{layer}_{half}", ()) for half in ("attention", "ffn")]
                sizes = [sum(_weights(child.shape(name)) for name in group) for group in groups]
                stored = [types.get(f"block_{layer}_{half}") for half in ("attention", "ffn")] if types else []
                table.writerow([layer, *sizes, *stored])


def _weights(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
