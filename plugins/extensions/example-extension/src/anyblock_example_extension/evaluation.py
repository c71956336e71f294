"""An evaluation, and a section of the report that shows what it found in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.evaluation import Evaluation, EvaluationContext, Figure
from anyblock.contract.report_section import ReportSection
from anyblock.contract.settings import Section
from pydantic import Field

if TYPE_CHECKING:
    from anyblock.contract.services import LoadedModel


class RepetitionSettings(Section):
    """Settings of the evaluation `repetition`."""

    prompts: int = Field(default=4, ge=1, description="How many sequences of the evaluation text are continued.")
    prompt_tokens: int = Field(default=16, ge=1, description="Tokens of each prompt.")
    new_tokens: int = Field(default=32, ge=3, description="Tokens that are generated after each prompt, greedily.")


class Repetition(Evaluation):
    """The share of distinct 3-grams in greedy continuations: a model that loops has few."""

    summary: ClassVar[str] = "share of distinct 3-grams in greedy continuations of the evaluation text"
    settings: ClassVar[type[Section]] = RepetitionSettings

    def run(self, context: EvaluationContext) -> Sequence[Figure]:
        """See `Evaluation.run`."""
        child = self._distinct(context, context.load(context.child))
        teacher = None if context.teacher is None else self._distinct(context, context.load(context.teacher))
        return [Figure("distinct 3-grams", child, teacher, higher_is_better=True)]

    def _distinct(self, context: EvaluationContext, loaded: LoadedModel) -> float:
        import torch

        chosen = self.settings_given
        model: Any = loaded.model
        prompts = context.ids[: chosen.prompts, : chosen.prompt_tokens].to(model.device)
        with torch.no_grad():
            written = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=chosen.new_tokens,
                min_new_tokens=chosen.new_tokens,
                do_sample=False,
                pad_token_id=0,
            )[:, prompts.shape[1] :].tolist()
        grams = [tuple(row[start : start + 3]) for row in written for start in range(len(row) - 2)]
        return len(set(grams)) / len(grams)


class RepetitionSection(ReportSection):
    """Says in one sentence whether the child repeats itself more than its teacher."""

    summary: ClassVar[str] = "whether the child repeats itself, in words; needs the evaluation `repetition`"
    title: ClassVar[str] = "Repetition"

    def markdown(self, summary: Mapping[str, Any], run: Path) -> str:
        """See `ReportSection.markdown`."""
        figures = (summary.get("evaluations") or {}).get("repetition")
        if not figures:
            return ""
        child, teacher = figures[0]["child"], figures[0]["teacher"]
        word = "no more" if child >= 0.8 * teacher else "more"
        return f"The child repeats itself {word} than its teacher: {child:.0%} of its 3-grams are distinct, {teacher:.0%} there."
