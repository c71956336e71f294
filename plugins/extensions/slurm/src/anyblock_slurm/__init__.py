"""The executor `slurm` of AnyBlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.executor import Executor

__all__ = ["SlurmExtension"]


class SlurmExtension:
    """Contributes the executor."""

    @hookimpl
    def executors(self) -> dict[str, type[Executor]]:
        """See `FamilySpec.executors`."""
        from anyblock_slurm.executor import SlurmExecutor

        return {"slurm": SlurmExecutor}
