"""`CandidateSource`: alternatives for a half of a layer whose units no importance ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from anyblock.contract.blocks import BlockConfig, Half
from anyblock.contract.settings import Configured, Section

if TYPE_CHECKING:
    import torch

    from anyblock.contract.importance_hook import ImportanceHook
    from anyblock.contract.pruning_mixin import PruningMixIn


class SourceSettings(Section):
    """Settings of every source."""

    enabled: bool = Field(default=False, description="Whether the source offers anything.")


@dataclass(frozen=True)
class HalfSite:
    """One half of one layer of the teacher. Since 0.2.

    Attributes:
        layer, half: where it is.
        block_config: the teacher's block.
        config: the configuration of the language model.
        tensors: the half's tensors by checkpoint name; on the meta device where only shapes are asked for.
        mixins: the family's pruning mixins by kind, which know where units lie.
        supports: the capabilities that the family declares.
    """

    layer: int
    half: Half
    block_config: BlockConfig
    config: Any
    tensors: Mapping[str, torch.Tensor]
    mixins: Mapping[str, PruningMixIn]
    supports: frozenset[str]


@dataclass(frozen=True)
class Offer:
    """One alternative. Since 0.2.

    Attributes:
        size: tells the offers of one source for one half apart; 0 where there is one, which then has the source's name.
        block_config: the block in which this half is the alternative.
    """

    size: int
    block_config: BlockConfig


@dataclass(frozen=True)
class StandIn:
    """Where a linear map goes that replaces a half, and which of the half's tensors stay with it. Since 0.2.

    Attributes:
        module: path inside the layer of the module that the map replaces, for instance `self_attn`.
        weight: the map's checkpoint name, for instance `model.layers.3.self_attn.linear.weight`.
        kept: checkpoint names of the half's other tensors, its norms.
        dtype: what the map is stored in: the dtype that most of the replaced bytes have.
    """

    module: str
    weight: str
    kept: tuple[str, ...]
    dtype: torch.dtype

    def tensors(self, half: Mapping[str, torch.Tensor], weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the half's tensors with the map `[hidden, hidden]` in place of the module's own."""
        return {**{name: half[name] for name in self.kept}, self.weight: weight.to(self.dtype)}


@dataclass(frozen=True)
class LinearFit:
    """A fitted weight and how well it does on tokens that it was not fitted on.

    Attributes:
        weight: `[out, in]`.
        ridge: the relative ridge that did best, or None when fitting did not help.
        plain_error: squared error without fitting, relative to the squared size of the outputs.
        error: the same of `weight`.
    """

    weight: torch.Tensor
    ridge: float | None
    plain_error: float
    error: float


class CandidateSource(Configured, ABC):
    """A way to make candidates for a half, from its weights and from sums over the calibration text. Since 0.2.

    Its candidates are costed, scored, searched, refined, distilled and written like any others.

    Class attributes:
        summary: one line.
        settings: the section of the configuration that stands under `pruning.NAME`; `self.settings_given` holds it.
        refits: whether `refitted` adapts its candidates to the inputs that they get in the child.

    Attributes:
        stand_in: set by AnyBlock: returns by layer and half where a linear map goes. It raises `UnsupportedModelError` where the
            half is not one module between norms.
        learned: what was collected, by layer and half; empty before the calibration.
    """

    summary: ClassVar[str]
    settings: ClassVar[type[Section]] = SourceSettings
    refits: ClassVar[bool] = False
    stand_in: Callable[[int, Half], StandIn]

    def __init__(self, settings: Section | None = None) -> None:
        super().__init__(settings)
        self.learned: Mapping[tuple[int, Half], torch.Tensor] = {}

    @classmethod
    def of_run(cls, settings: Section, pruning: Any) -> CandidateSource | None:
        """Return the source for a run, or None where the run does not use it.

        Args:
            settings: what stands under `pruning.NAME`.
            pruning: the run's whole `pruning` section.
        """
        return cls(settings) if getattr(settings, "enabled", True) else None

    @abstractmethod
    def offers(self, site: HalfSite) -> Sequence[Offer]:
        """Return the alternatives for one half; empty where there are none."""

    @abstractmethod
    def tensors(self, site: HalfSite, offer: Offer) -> Mapping[str, torch.Tensor]:
        """Return the alternative's tensors by checkpoint name; on the meta device where the site's are.

        Equal inputs give equal bytes. Before the calibration only shapes, dtypes and speed count.
        """

    def watches(self, site: HalfSite) -> tuple[str, type[ImportanceHook]] | None:
        """Return what the one calibration sweep collects of a half that the source has offers for; None where nothing.

        That is a module's path inside the layer, and a hook that adds up sums over its inputs and outputs; what `scores` of the
        hook returns may have any shape.
        """
        return None

    def learn(self, found: Mapping[tuple[int, Half], torch.Tensor], channels: Sequence[int] | None) -> None:
        """Take what was collected.

        Args:
            found: what `scores` of the hooks returned, by layer and half.
            channels: of the residual stream, where the model that candidates are made from keeps only these; None where all.
        """
        self.learned = found

    def refitted(
        self, site: HalfSite, offer: Offer, hook: ImportanceHook
    ) -> tuple[Mapping[str, torch.Tensor], LinearFit]:
        """Return `tensors` re-fitted to what the hook saw of the teacher's half on the inputs that it gets in the child.

        Asked of a source with `refits`. The hook is the one of `watches`, made with the keyword `held_out_every`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no candidates to re-fit")
