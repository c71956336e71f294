"""What a run's report is made of: plain data that a run writes as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from anyblock.errors import ConfigError


@dataclass(frozen=True)
class BudgetLine:
    """One budget: the cost's name, its bounds, and what the child uses of it; units are those of `anyblock list costs`."""

    cost: str
    used: float
    upper: float | None = None
    lower: float | None = None


@dataclass(frozen=True)
class SearchLine:
    """How the search ended.

    Attributes:
        status: `proven`, `gap` or `limit`; see `anyblock.search.solution.Status`.
        score: the found solution's value, the sum of its candidates' scores.
        bound: no solution can be better than this.
        gap: relative distance of the two; 0 means proven.
        score_kind: what is summed, for instance `kl`.
        seconds: time spent.
    """

    status: str
    score: float
    bound: float
    gap: float
    score_kind: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class StageLine:
    """A stage of the run.

    Attributes:
        name: what it is called.
        seconds: the time it took.
        reused: whether its result was there already.
        memory: main memory that the process held at most meanwhile, in bytes.
        quality: what it did to the child, in words.
    """

    name: str
    seconds: float
    reused: bool = False
    memory: int | None = None
    quality: str = ""


@dataclass(frozen=True)
class RunSummary:
    """Everything a report says about one run.

    Attributes:
        command: what was run.
        teacher: the teacher's name or path as the user gave it.
        model_type: its family.
        block_configs, teacher_block_configs: `BlockConfig.to_dict()` of every layer.
        budgets: what was asked for and what is used.
        costs, teacher_costs: values by the names of `anyblock list costs`.
        search: how the search ended; None when the child was given.
        quality: `EvaluationResult.to_dict()` of the child with its teacher; None when nothing was evaluated.
        evaluations: `{name: figures}` of evaluations that extensions made, see `anyblock.contract.evaluation.Figure`.
        formats: by export format, `obstacles`, why the child cannot be expressed in it, and `remarks`, what to know there.
        stages: in the order they ran.
        scenario: what memory and latency were counted for, by name.
        notes: further lines.
        versions: distribution names and versions.
        origin: `owner/name@commit` of a teacher that came from the hub.
    """

    command: str
    teacher: str
    model_type: str
    block_configs: list[dict[str, Any]]
    teacher_block_configs: list[dict[str, Any]]
    budgets: tuple[BudgetLine, ...] = ()
    costs: dict[str, float] | None = None
    teacher_costs: dict[str, float] | None = None
    search: SearchLine | None = None
    quality: dict[str, Any] | None = None
    evaluations: dict[str, list[dict[str, Any]]] | None = None
    formats: dict[str, dict[str, list[str]]] | None = None
    stages: tuple[StageLine, ...] = ()
    scenario: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    versions: dict[str, str] | None = None
    origin: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, also after a trip through JSON.

        Raises:
            ConfigError: a field is missing, unknown or of another type; names it.
        """
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigError(
                f"run summary: unknown field {sorted(unknown)[0]!r}", expected=", ".join(cls.__dataclass_fields__)
            )
        try:
            return TypeAdapter(cls).validate_python(dict(data))
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"run summary: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
