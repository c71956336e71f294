"""An AnyBlock extension: it adds importance hooks and a kind of pruning to every family, by name."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    from anyblock.contract.adaptation import Adaptation
    from anyblock.contract.candidate_source import CandidateSource
    from anyblock.contract.config_dialect import ConfigDialect
    from anyblock.contract.cost import Cost
    from anyblock.contract.evaluation import Evaluation
    from anyblock.contract.executor import Executor
    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.report_section import ReportSection
    from anyblock.contract.scoring_metric import ScoringMetric
    from anyblock.contract.storage_type import StorageType
    from anyblock.contract.text_reader import TextReader

__all__ = ["WandaExtension"]


class WandaExtension:
    """Contributes one small thing of every kind; `README.md` lists them."""

    @hookimpl
    def importance_hooks(self) -> dict[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        # Imported here: AnyBlock loads extensions whenever it looks up a family, also where torch is not wanted.
        from anyblock_example_extension.blocks import WandaBlockContributionHook
        from anyblock_example_extension.wanda import WandaChannelContributionHook

        return {cls.__name__: cls for cls in (WandaChannelContributionHook, WandaBlockContributionHook)}

    @hookimpl(wrapper=True)
    def pruning_mixins(self) -> Generator[None, list[dict[str, PruningMixIn]], list[dict[str, PruningMixIn]]]:
        """See `FamilySpec.pruning_mixins`: `ffn_blocks` wherever the family has `ffn_intermediate`."""
        # A wrapper and not a plain contribution, since the family's layer descriptor names the tensors.
        contributions = yield
        from anyblock_example_extension.blocks import FFNBlocksPruningMixIn

        channels = next((found["ffn_intermediate"] for found in contributions if "ffn_intermediate" in found), None)
        if channels is None:
            return contributions
        return [*contributions, {"ffn_blocks": FFNBlocksPruningMixIn(channels.layer_descriptor)}]

    @hookimpl
    def scoring_metrics(self) -> dict[str, type[ScoringMetric]]:
        """See `FamilySpec.scoring_metrics`."""
        from anyblock_example_extension.metric import SoftenedKl

        return {"softened_kl": SoftenedKl}

    @hookimpl
    def evaluations(self) -> dict[str, type[Evaluation]]:
        """See `FamilySpec.evaluations`."""
        from anyblock_example_extension.evaluation import Repetition

        return {"repetition": Repetition}

    @hookimpl
    def report_sections(self) -> dict[str, type[ReportSection]]:
        """See `FamilySpec.report_sections`."""
        from anyblock_example_extension.evaluation import RepetitionSection

        return {"repetition": RepetitionSection}

    @hookimpl
    def adaptations(self) -> dict[str, type[Adaptation]]:
        """See `FamilySpec.adaptations`."""
        from anyblock_example_extension.adaptation import NormTuning

        return {"tune_norms": NormTuning}

    @hookimpl
    def costs(self) -> dict[str, type[Cost]]:
        """See `FamilySpec.costs`."""
        from anyblock_example_extension.cost import Matrices, ProcessorTime

        return {"matrices": Matrices, "processor_time": ProcessorTime}

    @hookimpl
    def text_readers(self) -> dict[str, type[TextReader]]:
        """See `FamilySpec.text_readers`."""
        from anyblock_example_extension.reader import Paragraphs

        return {"paragraphs": Paragraphs}

    @hookimpl
    def candidate_sources(self) -> dict[str, type[CandidateSource]]:
        """See `FamilySpec.candidate_sources`."""
        from anyblock_example_extension.source import Magnitude

        return {"magnitude": Magnitude}

    @hookimpl
    def export_formats(self) -> dict[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        from anyblock_example_extension.layer_table import LayerTable

        return {"layer-table": LayerTable}

    @hookimpl
    def executors(self) -> dict[str, type[Executor]]:
        """See `FamilySpec.executors`."""
        from anyblock_example_extension.executor import ChildProcess

        return {"child-process": ChildProcess}

    @hookimpl
    def config_dialects(self) -> dict[str, type[ConfigDialect]]:
        """See `FamilySpec.config_dialects`."""
        from anyblock_example_extension.dialect import TeacherStudent

        return {"teacher-student": TeacherStudent}

    @hookimpl
    def storage_types(self) -> dict[str, StorageType]:
        """See `FamilySpec.storage_types`."""
        from anyblock_example_extension.storage import IntegerRows

        return {f"int{bits}_rows": IntegerRows(bits) for bits in (8, 16)}

    @hookimpl
    def infer_family(self, model_type: str) -> object | None:
        """See `FamilySpec.infer_family`."""
        from anyblock_example_extension.inference import inferred

        return inferred(model_type)
