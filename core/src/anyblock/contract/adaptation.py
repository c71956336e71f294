"""`Adaptation`: a stage that adapts the weights of a chosen child before it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.settings import Section

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.progress import Progress


class AdaptationSettings(Section):
    """Settings of every adaptation."""

    enabled: bool = Field(default=False, description="Whether the stage runs.")


class ChosenChild(Protocol):
    """A child that the search chose and that is not written yet. Since 0.2."""

    @property
    def block_configs(self) -> Sequence[BlockConfig]:
        """The child's architecture, one per layer."""
        ...

    @property
    def teacher_block_configs(self) -> Sequence[BlockConfig]:
        """The teacher's architecture, one per layer."""
        ...

    @property
    def fit_ids(self) -> torch.Tensor:
        """Text to fit to, int64 [sequences, tokens]; the part of the calibration text that judges is not in it."""
        ...

    @property
    def seed(self) -> int:
        """Seed of whatever is random."""
        ...

    @property
    def progress(self) -> Progress:
        """Where to report."""
        ...

    def model(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """Return the child as transformers' own class, in memory, with these tensors in place of its own.

        Args:
            tensors: by checkpoint name, usually what `Adaptation.run` was given.
        """
        ...

    def teacher(self) -> nn.Module:
        """Return the model that was given, as transformers' own class, in memory."""
        ...

    def tensors_of(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the tensors of all layers of a model that `model` returned, by checkpoint name."""
        ...

    def divergence(self, tensors: Mapping[str, torch.Tensor]) -> float:
        """Return KL(teacher || child) on held-out text of the child with these tensors, in nats per token."""
        ...


class Adaptation(ABC):
    """One way of adapting a child's weights. Since 0.2.

    Stages run in the order of `order` and hand tensors on. A stage that does not lower KL(teacher || child) on held-out text, or
    whose numbers become NaN or infinite, is dropped as a whole by the caller, with a line in the report.

    Class attributes:
        summary: one line.
        order: core's repair has 100, its distillation of single layers 200, that of the whole model 300.
        settings: the section of the configuration that stands at `settings_path`; `self.settings_given` holds it.
        settings_path: where it stands; `adaptation.NAME` when empty.
    """

    summary: ClassVar[str]
    order: ClassVar[int] = 250
    settings: ClassVar[type[Section]] = AdaptationSettings
    settings_path: ClassVar[str] = ""

    def __init__(self, settings: Section | None = None) -> None:
        self.settings_given: Any = settings if settings is not None else self.settings()

    @property
    def enabled(self) -> bool:
        """Whether the stage runs with these settings."""
        return bool(self.settings_given.enabled)

    @abstractmethod
    def run(
        self, child: ChosenChild, given: Mapping[str, torch.Tensor], folder: Path
    ) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
        """Return tensors by checkpoint name that replace the child's, and JSON lines about what was done.

        Equal inputs give equal bytes. The result holds whatever was given and is to stay.

        Args:
            child: the child.
            given: what the stage before handed on.
            folder: the stage's folder; `.partial` in it is for partial results, and is there again in a run that continues.

        Raises:
            NotFiniteError: numbers became NaN or infinite; the stage is then dropped.
        """

    def describe(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """Return a sentence for the report about what the stage did, from the lines that `run` returned; "" says nothing."""
        return ""
