"""Core's own hooks, formats and other kinds: one plugin, registered through the same relay as anyone's.

Every method imports what it returns, so that looking up a family loads nothing that is not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.adaptation import Adaptation
    from anyblock.contract.candidate_source import CandidateSource
    from anyblock.contract.cost import Cost
    from anyblock.contract.executor import Executor
    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.scoring_metric import ScoringMetric
    from anyblock.contract.text_reader import TextReader


class Builtins:
    """What every family has without any extension."""

    @hookimpl
    def importance_hooks(self) -> dict[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        from anyblock.importance import HOOKS

        return dict(HOOKS)

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock.export.transformers_format import TransformersFormat

        return {"transformers": TransformersFormat}

    @hookimpl
    def scoring_metrics(self) -> dict[str, type[ScoringMetric]]:
        """See `FamilySpec.scoring_metrics`."""
        from anyblock.modeling.metrics import METRICS

        return dict(METRICS)

    @hookimpl
    def adaptations(self) -> dict[str, type[Adaptation]]:
        """See `FamilySpec.adaptations`."""
        from anyblock.stages.repair import LeastSquaresRepair

        return {"repair": LeastSquaresRepair}

    @hookimpl
    def costs(self) -> dict[str, type[Cost]]:
        """See `FamilySpec.costs`."""
        from anyblock.costs.counted import COUNTED

        return dict(COUNTED)

    @hookimpl
    def candidate_sources(self) -> dict[str, type[CandidateSource]]:
        """See `FamilySpec.candidate_sources`."""
        from anyblock.candidates.no_op import NoOp

        return {"no_op": NoOp}

    @hookimpl
    def text_readers(self) -> dict[str, type[TextReader]]:
        """See `FamilySpec.text_readers`."""
        from anyblock.calibration.plain_text import PlainText

        return {"plain": PlainText}

    @hookimpl
    def executors(self) -> dict[str, type[Executor]]:
        """See `FamilySpec.executors`."""
        from anyblock.execution.local import LocalExecutor

        return {"local": LocalExecutor}
