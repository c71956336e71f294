"""`Cost`: what a child uses, which a budget can bound; counted from shapes, or measured on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from anyblock.contract.blocks import BlockConfig, Half
from anyblock.contract.cache_spec import CacheSpec
from anyblock.contract.settings import Configured
from anyblock.errors import UsageError

if TYPE_CHECKING:
    import torch

    from anyblock.progress import Progress as Progress  # a type of this contract, for plugins to import from here


@dataclass(frozen=True)
class CostedSubblock:
    """One subblock, the teacher's or a candidate's, whose cost is asked for. Since 0.2.

    Attributes:
        layer: the layer's index.
        half: which subblock.
        block_config: the block with this subblock in it.
        tensors: the subblock's tensors by checkpoint name, perhaps on the meta device; empty for a no-op.
        params, weight_bytes: elements and bytes of these tensors in the dtype that is counted for.
        cache: what an attention keeps per sequence; None for an ffn.
        cache_width: bytes of one element of the cache.
        batch_size: sequences that are decoded together.
        length: tokens of each, prompt and answer together.
    """

    layer: int
    half: Half
    block_config: BlockConfig
    tensors: Mapping[str, torch.Tensor]
    params: int
    weight_bytes: int
    cache: CacheSpec | None
    cache_width: int
    batch_size: int
    length: int

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache of all sequences together; 0 for an ffn."""
        return 0 if self.cache is None else self.cache.bytes(self.length, self.cache_width) * self.batch_size


class Cost(Configured, ABC):
    """A number that adds up over subblocks. Since 0.2.

    Class attributes:
        summary: one sentence.
        unit: `parameters`, `bytes`, `ms`, or any other word; budgets take `2.5GiB` for bytes, `12ms` for times, `7B` for counts.
        settings: the section of the configuration that stands under `costs.NAME`; `self.settings_given` holds it.
    """

    summary: ClassVar[str]
    unit: ClassVar[str]


class CountedCost(Cost):
    """A cost that follows from shapes; it is counted for every candidate before anything runs."""

    @abstractmethod
    def subblock(self, part: CostedSubblock) -> float:
        """Return what one subblock uses."""

    def outside(self, params: int, weight_bytes: int) -> float:
        """Return what everything outside the subblocks uses (embeddings, final norm, head).

        Args:
            params, weight_bytes: elements and bytes of these weights; a tied head counts once.
        """
        return 0.0


@dataclass(frozen=True)
class Call:
    """Something to be timed.

    Attributes:
        run: does the work once; timed.
        reset: puts back what `run` changed (a cache that grew by one token); not timed.
    """

    run: Callable[[], object]
    reset: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """Times of one call, in ms: the median, the interquartile range, and how many samples there were. Since 0.2."""

    median: float
    spread: float
    samples: int


@dataclass(frozen=True)
class LatencyScenario:
    """What is timed: one prefill of a batch, then so many decoding steps.

    Attributes:
        batch_size: sequences at a time.
        prefill_length: tokens of each prompt.
        generated: decoding steps after it; 0 measures the prefill alone.
    """

    batch_size: int = 1
    prefill_length: int = 512
    generated: int = 128

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.prefill_length < 1 or self.generated < 0:
            raise UsageError(
                f"batch size {self.batch_size}, prefill {self.prefill_length}, generated {self.generated}",
                expected="a batch and a prompt of at least 1, and 0 or more generated tokens",
            )

    @property
    def past_length(self) -> int:
        """The past length at which one decoding step is timed.

        A step's time grows linearly with the past, so the step in the middle stands for the mean over all of them.
        """
        return self.prefill_length + self.generated // 2


@dataclass(frozen=True)
class SubblockCalls:
    """A subblock's work in a scenario: `prefill` on all of the prompts, `decode` on one token after `past_length`."""

    prefill: Call
    decode: Call | None = None


class MeasuredCost(Cost):
    """A cost that is measured on the run's device, for each distinct subblock, once a budget bounds it."""

    @abstractmethod
    def measure(
        self,
        calls: Mapping[str, SubblockCalls],
        scenario: LatencyScenario,
        *,
        device: torch.device,
        repeats: int,
        progress: Progress,
    ) -> Mapping[str, float]:
        """Return the cost of every subblock in the scenario, by the same keys.

        Args:
            calls: the work of each subblock; the other half of its layer is removed.
            scenario: what the calls were built for.
            device: where they run.
            repeats: how often to measure (`search.timing_rounds`).
            progress: where to report.
        """


class Rate(Cost):
    """What a measured cost yields, of which more is better: a fixed amount over the cost. Since 0.2.

    A budget on it is one on the cost: a plain value is a lower bound, `2x` the teacher's rate is `0.5x` the teacher's cost.

    Class attributes:
        of: the cost's name.
    """

    of: ClassVar[str]

    @abstractmethod
    def amount(self, scenario: LatencyScenario) -> float:
        """Return the rate times the cost; 0 where the scenario yields nothing."""
