"""Latency as a cost that budgets can bound, and throughput, which follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.cost import Cost


class LatencyExtension:
    """Brings both."""

    @hookimpl
    def costs(self) -> dict[str, type[Cost]]:
        """See `FamilySpec.costs`."""
        from anyblock_latency.cost import Latency, Throughput

        return {"latency": Latency, "throughput": Throughput}
