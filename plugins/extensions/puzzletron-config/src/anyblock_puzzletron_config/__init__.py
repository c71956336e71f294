"""The configuration files of the AnyModel guide and of NVIDIA ModelOpt's Puzzletron, read by AnyBlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.config_dialect import ConfigDialect

__all__ = ["PuzzletronConfigExtension"]


class PuzzletronConfigExtension:
    """Contributes the dialect `puzzletron`."""

    @hookimpl
    def config_dialects(self) -> dict[str, type[ConfigDialect]]:
        """See `FamilySpec.config_dialects`."""
        from anyblock_puzzletron_config.dialect import PuzzletronDialect

        return {"puzzletron": PuzzletronDialect}
