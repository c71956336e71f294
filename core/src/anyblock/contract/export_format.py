"""`ExportFormat`: a form of checkpoint that some tool reads, and what a format sees of a child."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from anyblock.contract.blocks import HALVES, BlockConfig
from anyblock.contract.settings import Configured

if TYPE_CHECKING:
    import torch


class Child(Protocol):
    """A subblock checkpoint as export formats see it. Since 0.2.

    Attributes:
        path: its folder.
        config: the content of `config.json` without `block_configs`; not to be changed.
        block_configs: one per layer.
        groups: `{group: names of its tensors}`.
        model_groups: the groups that the model loads.
    """

    path: Path
    config: Mapping[str, Any]
    block_configs: list[BlockConfig]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def model_groups(self) -> tuple[str, ...]:
        """See above."""

    @property
    def view(self) -> Any:
        """The configuration with attributes, defaults included; `view.resolve()` is transformers' own object."""

    def load(self, group: str) -> dict[str, torch.Tensor]:
        """Return the tensors of one group, mapped from its file."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one tensor; its file's header is read and nothing else."""

    def text_part(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the part of a `config.json` (not a copy) that describes the decoder's layers."""

    def uniform_config(self) -> dict[str, Any] | None:
        """Return the stock `config.json` of a child whose layers all are what one configuration says, else None."""

    def layer_differences(self) -> list[dict[str, Any]]:
        """Return for every layer the attributes in which it differs from the child's `config.json`, and `skip`.

        `skip` lists the removed halves, `attention` and `mlp`, where the unpruned model has them; it is left out when empty.
        """

    def write_directory(
        self,
        directory: Path,
        *,
        config: Mapping[str, Any],
        tensors: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]] = lambda stored: stored,
    ) -> None:
        """Write a Hugging Face directory: weights, index, configuration, and whatever else the child has next to them.

        Groups are in memory one at a time, and mapped from the child's files as far as `tensors` leaves them as they are.

        Args:
            directory: an existing, empty directory.
            config: the content of `config.json`.
            tensors: turns the tensors of one group into those that are written.

        Raises:
            CheckpointError: the child's files are damaged.
            OSError: the directory cannot be written.
        """


class ExportFormat(Configured, ABC):
    """A form of checkpoint that some tool reads.

    Class attributes:
        summary: one line: which tools read it.
        settings: the options of `anyblock export --set NAME=VALUE`; `self.settings_given` holds them. Since 0.2.
        aliases: programs that read it, whose names may stand for its own. Since 0.2.
        width_multiples: numbers of channels that suit the storage types and fast kernels of what reads it, the best first. With
            `anyblock compress --for`, widths are multiples of the first that divides the teacher's, else of the last. Since 0.2.
    """

    summary: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    width_multiples: ClassVar[tuple[int, ...]] = (1,)

    @abstractmethod
    def obstacles(self, child: Child) -> list[str]:
        """Return why this child cannot be expressed in the format, one reason per entry; empty when it can."""

    def remarks(self, child: Child) -> list[str]:
        """Return what to know about this child in the format, a sentence each; `obstacles` is empty. Since 0.2."""
        return []

    @abstractmethod
    def write(self, child: Child, directory: Path) -> None:
        """Write the child into an existing, empty directory; `obstacles` is empty."""


def linear_obstacles(child: Child) -> list[str]:
    """Return, for a form without linear maps in place of halves, where the child has some."""
    return [
        f"layer {index} has a linear map in place of its {half}, which the form cannot express"
        for index, block in enumerate(child.block_configs)
        for half in HALVES
        if block.half(half).replace_with_linear
    ]
