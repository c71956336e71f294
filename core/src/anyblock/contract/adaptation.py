"""`Adaptation`: a stage that adapts the weights of a chosen child before it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from anyblock.contract.blocks import BlockConfig
from anyblock.contract.settings import Configured, Section

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.progress import Progress


class AdaptationSettings(Section):
    """Settings of every adaptation."""

    enabled: bool = Field(default=False, description="Whether the stage runs.")


class LayerRunner(Protocol):
    """A model that runs layer by layer, with as many layers in memory as there is room for. Since 0.2."""

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""

    @property
    def device(self) -> torch.device:
        """Where hidden states are between layers."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the hidden states."""

    def prepare_all(self, batches: Iterable[torch.Tensor], spool: Any) -> tuple[list[Any], Any]:
        """Return batches of token ids, [batch, length] each, ready to run, and the first layer's inputs.

        Args:
            batches: the token ids.
            spool: where the inputs are kept, see `LayerwiseChild.spool`; they are read and replaced by their place.
        """

    def run(self, index: int, hidden: torch.Tensor, batch: Any, *, layer: nn.Module | None = None) -> torch.Tensor:
        """Run layer `index`, or `layer` in its place, on hidden states [batch, length, hidden]; returns the same shape."""

    def final_hidden(self, hidden: torch.Tensor, batch: Any) -> torch.Tensor:
        """Return what the head receives, from the last layer's output."""


class ChildLayers(Protocol):
    """The layers of a child, made on demand. Since 0.2."""

    def tensors(self, index: int) -> dict[str, torch.Tensor]:
        """Return a layer's tensors by checkpoint name."""

    def is_teachers(self, index: int) -> bool:
        """Return whether the layer is the teacher's own, weights included."""

    def layer(self, index: int) -> AbstractContextManager[nn.Module]:
        """Lend a layer."""

    def trainable(self, index: int) -> dict[str, nn.Parameter]:
        """Give the lent layer float32 parameters with gradients, and return them by checkpoint name."""

    def run(self, index: int, hidden: Iterable[torch.Tensor], batches: Sequence[Any]) -> Iterator[torch.Tensor]:
        """Run a layer on the hidden states of every batch, one batch after the other."""


class Targets(Protocol):
    """What the teacher says on one batch. Since 0.2."""

    @property
    def batch(self) -> Any:
        """The batch, as the child's layers take it, with `hidden`, the first layer's input."""

    @property
    def final(self) -> torch.Tensor | None:
        """What the teacher's head receives; None where the teacher has a larger hidden size than the child."""

    def divergences(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield KL(teacher || child) of every token, chunk by chunk; gradients reach `hidden`, the child's last hidden states."""

    def distance(self, hidden: torch.Tensor) -> tuple[float, float]:
        """Return the sum of the KL over tokens, and their number."""


class LayerStore(Protocol):
    """Finished layers in a folder, so that an interrupted stage continues after them. Since 0.2."""

    def load(self, index: int) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]] | None:
        """Return a layer's tensors and its JSON lines; None where it is not finished."""

    def save(self, index: int, tensors: Mapping[str, torch.Tensor], lines: list[dict[str, Any]]) -> None:
        """Keep a finished layer."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Return the tensors of all finished layers, mapped from their files."""


class LayerwiseChild(Protocol):
    """A child that is run, fitted or trained layer by layer, within the run's memory. Since 0.2."""

    @property
    def runner(self) -> LayerRunner:
        """The model that the child is made from."""

    @property
    def fit_ids(self) -> torch.Tensor:
        """See `ChosenChild.fit_ids`."""

    @property
    def judge_ids(self) -> torch.Tensor:
        """Text to judge by, int64 [sequences, tokens]; no stage fits to it."""

    def layers(self, changed: Mapping[str, torch.Tensor]) -> ChildLayers:
        """Return the child's layers with these tensors in place of its own; the mapping is read at every use."""

    def targets(self, ids: torch.Tensor) -> Targets:
        """Run the teacher on token ids, [batch, length]."""

    def spool(self, folder: Path) -> Any:
        """Return where hidden states are kept, `spool.collect(tensors)`: in memory, or in this folder where that is too small."""

    def store(self, folder: Path) -> LayerStore:
        """Return the finished layers that are kept in this folder."""


class ChosenChild(Protocol):
    """A child that the search chose and that is not written yet. Since 0.2."""

    @property
    def block_configs(self) -> Sequence[BlockConfig]:
        """The child's architecture, one per layer."""

    @property
    def teacher_block_configs(self) -> Sequence[BlockConfig]:
        """The teacher's architecture, one per layer."""

    @property
    def fit_ids(self) -> torch.Tensor:
        """Text to fit to, int64 [sequences, tokens]; the part of the calibration text that judges is not in it."""

    @property
    def seed(self) -> int:
        """Seed of whatever is random."""

    @property
    def progress(self) -> Progress:
        """Where to report."""

    @property
    def layerwise(self) -> LayerwiseChild:
        """The child layer by layer, for stages that must not hold a whole model in memory."""

    def model(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """Return the child as transformers' own class, in memory, with these tensors in place of its own.

        Args:
            tensors: by checkpoint name, usually what `Adaptation.run` was given.
        """

    def teacher(self) -> nn.Module:
        """Return the model that was given, as transformers' own class, in memory."""

    def tensors_of(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the tensors of all layers of a model that `model` returned, by checkpoint name."""

    def divergence(self, tensors: Mapping[str, torch.Tensor]) -> float:
        """Return KL(teacher || child) on held-out text of the child with these tensors, in nats per token."""


class Adaptation(Configured, ABC):
    """One way of adapting a child's weights. Since 0.2.

    Stages run in the order of `order` and hand tensors on. A stage that does not lower KL(teacher || child) on held-out text, or
    whose numbers become NaN or infinite, is dropped as a whole by the caller, with a line in the report.

    Class attributes:
        summary: one line.
        order: core's repair has 100.
        settings: the section of the configuration that stands at `settings_path`; `self.settings_given` holds it.
        settings_path: where it stands; `adaptation.NAME` when empty.
    """

    summary: ClassVar[str]
    order: ClassVar[int] = 250
    settings: ClassVar[type[Section]] = AdaptationSettings
    settings_path: ClassVar[str] = ""

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
