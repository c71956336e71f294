"""`Evaluation`: something that is measured on a finished child."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.services import LoadedModel
from anyblock.contract.settings import Configured

if TYPE_CHECKING:
    import torch

    from anyblock.progress import Progress


@dataclass(frozen=True)
class Figure:
    """One number that an evaluation found. Since 0.2.

    Attributes:
        name: what it is, with its unit where it has one.
        child: the child's value.
        teacher: the teacher's; None where it was not measured.
        higher_is_better: None where neither is.
    """

    name: str
    child: float
    teacher: float | None = None
    higher_is_better: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation is given. Since 0.2.

    Attributes:
        child: the child's folder.
        teacher: the teacher's folder; None where the child is evaluated alone.
        ids: the evaluation text, int64 [sequences, tokens]; nothing was calibrated on it.
        load: loads a model by its folder, with its tokenizer, on the run's device and in its dtype.
        seed: of whatever is random.
        progress: where to report.
    """

    child: Path
    teacher: Path | None
    ids: torch.Tensor
    load: Callable[[Path], LoadedModel]
    seed: int
    progress: Progress


class Evaluation(Configured, ABC):
    """A measurement of the finished child. Since 0.2.

    A run makes it where `evaluation.also` names it; its figures stand in the report and in `summary.json`.

    Class attributes:
        summary: one line.
        settings: the section of the configuration that stands under `evaluation.NAME`; `self.settings_given` holds it.
    """

    summary: ClassVar[str]

    @abstractmethod
    def run(self, context: EvaluationContext) -> Sequence[Figure]:
        """Return the figures, in the order in which a report shows them; equal inputs give equal figures."""


def read_figures(data: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Read what `Figure.to_dict` wrote."""
    return [Figure(**entry) for entry in data]
