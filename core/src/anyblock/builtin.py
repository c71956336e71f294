"""Core's own hooks, formats and other kinds: one plugin, registered through the same relay as anyone's.

Every method imports what it returns, so that looking up a family loads nothing that is not asked for.
"""

from __future__ import annotations

from typing import Any

from anyblock.contract.hookspecs import hookimpl


class Builtins:
    """What every family has without any extension."""

    @hookimpl
    def importance_hooks(self) -> dict[str, type[Any]]:
        """See `FamilySpec.importance_hooks`."""
        from anyblock.importance import HOOKS

        return dict(HOOKS)

    @hookimpl
    def export_formats(self) -> dict[str, type[Any]]:
        """See `FamilySpec.export_formats`."""
        from anyblock.export.transformers_format import TransformersFormat

        return {"transformers": TransformersFormat}

    @hookimpl
    def scoring_metrics(self) -> dict[str, type[Any]]:
        """See `FamilySpec.scoring_metrics`."""
        from anyblock.modeling.metrics import METRICS

        return dict(METRICS)

    @hookimpl
    def adaptations(self) -> dict[str, type[Any]]:
        """See `FamilySpec.adaptations`."""
        from anyblock.stages.repair import LeastSquaresRepair

        return {"repair": LeastSquaresRepair}

    @hookimpl
    def costs(self) -> dict[str, type[Any]]:
        """See `FamilySpec.costs`."""
        from anyblock.costs.counted import COUNTED

        return dict(COUNTED)

    @hookimpl
    def candidate_sources(self) -> dict[str, type[Any]]:
        """See `FamilySpec.candidate_sources`."""
        from anyblock.candidates.linear import Linear
        from anyblock.candidates.no_op import NoOp

        return {"linear": Linear, "no_op": NoOp}

    @hookimpl
    def text_readers(self) -> dict[str, type[Any]]:
        """See `FamilySpec.text_readers`."""
        from anyblock.calibration.plain_text import PlainText

        return {"plain": PlainText}

    @hookimpl
    def executors(self) -> dict[str, type[Any]]:
        """See `FamilySpec.executors`."""
        from anyblock.execution.local import LocalExecutor

        return {"local": LocalExecutor}
