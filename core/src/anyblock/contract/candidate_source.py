"""`CandidateSource`: alternatives for a half of a layer that need no importance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from anyblock.contract.blocks import BlockConfig, Half
from anyblock.contract.settings import Configured, Section

if TYPE_CHECKING:
    import torch

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
        size: tells the offers of one source for one half apart; 0 where there is one.
        block_config: the block in which this half is the alternative.
    """

    size: int
    block_config: BlockConfig


class CandidateSource(Configured, ABC):
    """A way to make candidates for a half from its weights alone. Since 0.2.

    Its candidates are costed, scored, searched, refined, distilled and written like any others.

    Class attributes:
        summary: one line.
        settings: the section of the configuration that stands under `pruning.NAME`; `self.settings_given` holds it.
    """

    summary: ClassVar[str]
    settings: ClassVar[type[Section]] = SourceSettings

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

        Equal inputs give equal bytes.
        """
