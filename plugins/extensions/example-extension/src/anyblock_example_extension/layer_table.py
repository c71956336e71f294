"""An export format: the child's sizes as a table that a spreadsheet reads."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar, Literal

from anyblock.contract.export_format import Child, ExportFormat
from anyblock.contract.settings import Section
from pydantic import Field

FILE = "layers.csv"


class LayerTableSettings(Section):
    """Settings of the format `layer-table`."""

    separator: Literal[",", ";", "\t"] = Field(default=",", description="What stands between two columns.")


class LayerTable(ExportFormat):
    """One line per layer: its index, and the number of weights in its attention and in its ffn."""

    summary: ClassVar[str] = "a table of the layers' sizes for spreadsheets, without weights"
    settings: ClassVar[type[Section]] = LayerTableSettings

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: every child has sizes."""
        return []

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        with (directory / FILE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter=self.settings_given.separator)
            table.writerow(["layer", "attention", "ffn"])
            for layer in range(len(child.block_configs)):
                groups = [child.groups.get(f"block_{layer}_{half}", ()) for half in ("attention", "ffn")]
                table.writerow([layer, *(sum(_weights(child.shape(name)) for name in group) for group in groups)])


def _weights(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
