"""`RunConfig`: everything that one run of `anyblock compress` needs to know, typed and validated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from anyblock.config.budget import Bound, as_cost, merge_entries, parse_bound
from anyblock.config.effort import Effort
from anyblock.config.pruning import PruningConfig
from anyblock.contract.cost import LatencyScenario
from anyblock.contract.settings import Fraction, Names, Positive, Section
from anyblock.errors import ConfigError

_S = TypeVar("_S", bound=Section)
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, in which `~` is the home folder."""
_Bounds = dict[str, float | str]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""`auto` is what the checkpoint itself says."""


def _budget(value: Any) -> Any:
    """Turn a list of `COST=VALUE` texts into a mapping, and check every value of it."""
    if isinstance(value, list | tuple):
        try:
            value = {cost: bound for cost, (bound, _) in merge_entries((str(entry), "") for entry in value).items()}
        except ConfigError as error:
            raise ValueError(error.in_one_line()) from error
    faults = []
    for cost, bound in value.items() if isinstance(value, Mapping) else ():
        try:
            if isinstance(bound, bool) or not isinstance(bound, int | float | str):
                raise ConfigError(f"{bound!r} is not a quantity", expected="a number or text such as 0.8x")
            parse_bound(str(cost), bound)
        except ConfigError as error:
            faults.append({"path": (cost,), "text": error.in_one_line()})
    if faults:
        raise PydanticCustomError("several", "unusable budgets", {"faults": faults})
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class TextSource(Section):
    """One text of a mixture."""

    path: str = Field(description="A file or folder, `-` for standard input, or `hf://datasets/OWNER/NAME/PATH`.")
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="Its share of the tokens, relative to the weights of the others."
    )
    field: str | None = Field(default=None, description="As `data.field`, for this text.")


class DataConfig(Section):
    """The text that importance, scores and the evaluation are computed on."""

    path: str | Annotated[tuple[str | TextSource, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None,
        description=(
            "Calibration text: a file or folder of text, JSON, JSON lines, CSV, Parquet or Arrow, also compressed; `-`; "
            "`hf://datasets/OWNER/NAME/PATH`; or a list of these, also as `{path: ..., weight: 2}`, to be mixed."
        ),
    )
    evaluation: str | Annotated[tuple[str | TextSource, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None,
        description="Text for the evaluation. `null`: the end of the calibration text, which is not calibrated on.",
    )
    field: str | None = Field(
        default=None,
        description="Of JSON and tables, the field with the text or the conversation. `null`: `text`, or another usual one.",
    )
    held_out: Fraction = Field(
        default=0.3,
        description="Share of the calibration text that is kept for the evaluation when it has no own text.",
    )
    block_size: Positive = Field(default=512, description="Tokens in one sequence.")
    calibration_tokens: Positive = Field(default=32_768, description="Tokens for importance and repair, at most.")
    scoring_tokens: Positive = Field(default=4_096, description="Tokens on which candidates are scored, at most.")
    evaluation_tokens: Positive = Field(default=32_768, description="Tokens for the evaluation, at most.")
    batch_size: Positive = Field(default=4, description="Sequences in one forward pass.")

    def sources(self, given: str | tuple[str | TextSource, ...]) -> list[TextSource]:
        """Return the texts that `path` or `evaluation` names, with the common field where they have none of their own."""
        each = (given,) if isinstance(given, str) else given
        texts = [TextSource(path=text) if isinstance(text, str) else text for text in each]
        return [text.model_copy(update={"field": text.field or self.field}) for text in texts]


class ScoringConfig(Section):
    """How much each candidate hurts."""

    metric: str = Field(
        default="kl",
        min_length=1,
        description=(
            "`kl`: teacher to child, per token. `cosine`: final hidden states. `lm_loss`: loss on the text. "
            "`mse`: output of the block. `anyblock list metrics` shows those of extensions too."
        ),
    )
    method: Literal["auto", "exact", "estimated"] = Field(
        default="auto",
        description=(
            "`exact`: the rest of the model runs after every candidate. `estimated`: gradients predict the KL from the "
            "layer's own output, a sample is scored exactly and the rest corrected by it. `auto`: `estimated` for `kl`, "
            "`exact` for the other metrics."
        ),
    )
    probes: Positive = Field(
        default=4, description="Draws from the teacher's prediction at every token, for `estimated`."
    )
    exact_sample: Annotated[int, Field(ge=2)] = Field(
        default=16,
        description="Candidates that `estimated` scores exactly all the same, to correct and judge the rest; the refinement"
        " measures as many exchanges for the same purpose.",
    )


class SearchConfig(Section):
    """Which child is looked for."""

    budget: Annotated[_Bounds, BeforeValidator(_budget, json_schema_input_type=_Bounds | list[str])] = Field(
        default_factory=dict,
        description=(
            "What the child may cost: `{cost: value}` or a list of `COST=VALUE`. A value is a number with or without "
            "a unit (`2.5GiB`, `7B`, `12ms`, `500tok/s`), a share of the teacher (`0.8x`, `80%`), a range (`40..100`), "
            "or one of these after `>=` or `<=`."
        ),
    )
    batch: Positive = Field(default=1, description="Sequences served at once, for memory and measured costs.")
    length: Positive = Field(
        default=4096,
        description="Tokens of a sequence, prompt and answer together, for memory and measured costs.",
    )
    generated: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="How many of these are generated, for measured costs. `null`: 128, but at most half.",
    )
    timing_rounds: Positive = Field(
        default=11,
        description="How often each subblock is measured for a budget on a measured cost, such as latency; the median counts.",
    )
    cache_dtype: Dtype = Field(
        default="auto", description="Element type of the key-value cache. `auto`: the weights' own."
    )
    time_limit: float = Field(default=60.0, gt=0, description="Seconds for one solution.")
    gap: float = Field(
        default=1e-3,
        ge=0,
        description=(
            "Relative gap to the lower bound at which the search may stop. A proof is tried first where it takes a moment; "
            "1e-6 insists on one, which can last until `time_limit` with three or more budgets."
        ),
    )
    refine_rounds: Annotated[int, Field(ge=0)] = Field(
        default=6,
        description=(
            "After the first solution: at most so many rounds that score the candidates around it and search again nearby, "
            "until the KL on the scoring text stops falling. 0: none."
        ),
    )
    solutions: Positive = Field(default=1, description="How many different solutions to return.")
    min_distance: Positive = Field(default=1, description="In how many subblocks two solutions differ at least.")

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> Self:
        if self.generated_tokens >= self.length:
            raise ValueError(f"generated={self.generated} of length={self.length} tokens leaves no room for a prompt")
        try:
            _ = self.bounds()
        except ConfigError as error:
            raise ValueError(error.in_one_line()) from error
        return self

    @property
    def generated_tokens(self) -> int:
        """Tokens of a sequence that are generated one by one; the rest is the prompt."""
        return min(128, self.length // 2) if self.generated is None else self.generated

    def bounds(self) -> tuple[Bound, ...]:
        """Return the budget as bounds, in the order in which it was written; one on a rate as one on its cost."""
        return tuple(as_cost(parse_bound(cost, value), self.scenario) for cost, value in self.budget.items())

    @property
    def scenario(self) -> LatencyScenario:
        """What is measured: the batch, and the length split into a prompt and generated tokens."""
        generated = self.generated_tokens
        return LatencyScenario(self.batch, self.length - generated, generated)


class StorageConfig(Section):
    """In which types the child's file stores its numbers; the search chooses one for every half, together with its shape."""

    types: Names | None = Field(
        default=None,
        description=(
            "Storage types of halves, by name; `anyblock list types` shows them. Empty: none. `null`: the usual ones where a "
            "budget is on `bytes`, else none."
        ),
    )
    embeddings: Annotated[Names | None, BeforeValidator(_listed)] = Field(
        default=None,
        description=(
            "Those of embeddings and head, by name, of which the search chooses. `null`: `types`. Whatever else is in no half has "
            "the largest."
        ),
    )


class EvaluationConfig(Section):
    """What is measured on the finished child."""

    enabled: bool = Field(default=True, description="Compare the child with the teacher when it is written.")
    also: Names = Field(
        default=(), description="Evaluations of extensions to make, by name; `anyblock list evaluations` shows them."
    )


class ReportConfig(Section):
    """What the run's report says."""

    sections: Names | None = Field(
        default=None,
        description="Sections of extensions to add, see `anyblock list sections`. `null`: those for every run, such as `html`.",
    )


class MemoryConfig(Section):
    """How much memory the run itself takes; it changes no result."""

    limit: int | str | None = Field(
        default=None,
        description=(
            "Memory that the process may take in all: bytes, or a text such as `8GiB`. `null`: what is available when the "
            "run starts, within the limits of its control groups."
        ),
    )
    max_resident: Positive | None = Field(
        default=None,
        description="Layers whose weights are held at once. `null`: all, or as many as there is room for.",
    )

    @model_validator(mode="after")
    def _limit_is_a_quantity(self) -> Self:
        try:
            _ = self.limit_bytes
        except ConfigError as error:
            raise ValueError(error.in_one_line()) from error
        return self

    @property
    def limit_bytes(self) -> int | None:
        """`limit` in bytes.

        Raises:
            ConfigError: it is not a quantity.
        """
        if self.limit is None:
            return None
        bound = parse_bound("memory", self.limit)
        if bound.upper is None or bound.lower is not None or bound.upper.relative:
            raise ConfigError(f"limit is {self.limit!r}", expected="a number of bytes, or a text such as 8GiB")
        return int(bound.upper.value)


class ExecutionConfig(Section):
    """Where the run's tasks are computed; it changes no result."""

    engine: str = Field(
        default="local",
        min_length=1,
        description="`local`: in this process. `anyblock list executors` shows those of extensions too.",
    )
    threads: Positive | None = Field(
        default=None,
        description="Threads of one task, wherever it is computed. `null`: what torch takes where the run is started.",
    )


class RunConfig(Section):
    """One run: a teacher, a text, the candidates, the budget, and where the child goes."""

    model: str = Field(
        min_length=1, description="The teacher: a Hugging Face directory, a subblock checkpoint or a hub id."
    )
    output: UserPath = Field(min_length=1, description="The child's directory.")
    run_dir: UserPath | None = Field(
        default=None,
        description="Folder for stages, scores, solutions and the report. `null`: `OUTPUT.run` next to it.",
    )
    revision: str | None = Field(default=None, description="Revision of a hub id.")
    trust_remote_code: bool = Field(default=False, description="Run the Python code that comes with the checkpoint.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?|cuda:\d+(,cuda:\d+)+|xpu:\d+(,xpu:\d+)+)$",
        description="`cpu`, `cuda`, `cuda:1`, `mps`, `xpu`, several as in `cuda:0,cuda:1` (needs `anyblock[devices]`), or `auto`: "
        "accelerators if there are any.",
    )
    dtype: Dtype = Field(default="auto", description="Element type of the computation. `auto`: the checkpoint's own.")
    seed: int = Field(default=0, ge=0, description="Seed of everything that is random.")
    effort: Effort = Field(
        default="balanced",
        description="`quick`, `balanced` or `thorough`: how much text, searching and training. It sets the defaults of other keys.",
    )
    data: DataConfig = Field(default_factory=DataConfig, description="Calibration, scoring and evaluation text.")
    pruning: PruningConfig = Field(default_factory=PruningConfig, description="Which candidates there are.")
    scoring: ScoringConfig = Field(default_factory=ScoringConfig, description="How candidates are scored.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="Which child is looked for.")
    storage: StorageConfig = Field(
        default_factory=StorageConfig, description="In which types the child's file stores its numbers."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="What is measured in the end.")
    report: ReportConfig = Field(default_factory=ReportConfig, description="What the run's report says.")
    memory: MemoryConfig = Field(default_factory=MemoryConfig, description="How much memory the run itself takes.")
    execution: ExecutionConfig = Field(
        default_factory=ExecutionConfig, description="Where the run's tasks are computed."
    )

    def section(self, path: str, model: type[_S]) -> _S:
        """Return the settings that stand at a dotted path; the model's defaults where the file has none.

        Args:
            path: for instance `pruning.my_kind`.
            model: the class of these settings, as the extension gives it.
        """
        found: Any = self
        for part in path.split("."):
            found = getattr(found, part, None)
        return found if isinstance(found, model) else model()
