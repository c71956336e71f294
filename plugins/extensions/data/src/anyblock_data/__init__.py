"""Calibration text out of JSON, tables and compressed files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.text_reader import TextReader


class DataExtension:
    """Brings one reader of all formats."""

    @hookimpl
    def text_readers(self) -> dict[str, type[TextReader]]:
        """See `FamilySpec.text_readers`."""
        from anyblock_data.reader import DataReader

        return {"data": DataReader}
