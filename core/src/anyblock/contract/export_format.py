"""`ExportFormat`: a form of checkpoint that some tool reads, and what a format sees of a child."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from anyblock.contract.blocks import HALVES, BlockConfig
from anyblock.contract.settings import Configured

if TYPE_CHECKING:
    import torch

_LLAMA: Final = re.compile(
    r"(?:model\.layers\.\d+\.)?(?:model\.(?:embed_tokens|norm)|lm_head|input_layernorm|post_attention_layernorm"
    r"|self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.(?:weight|bias)"
)


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
    """

    summary: ClassVar[str]

    @abstractmethod
    def obstacles(self, child: Child) -> list[str]:
        """Return why this child cannot be expressed in the format, one reason per entry; empty when it can."""

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


def llama_obstacles(child: Child) -> list[str]:
    """Return why a child is not a Llama whose layers merely differ in size; empty when it is one."""
    if linear := linear_obstacles(child):
        return linear
    model_type = child.config["model_type"]
    if model_type not in ("llama", "mistral"):
        return [f"its model_type is {model_type}; only models that compute what Llama computes can be expressed"]
    config = child.view
    found = [
        f"it has the tensor {name}, which a Llama does not have"
        for group in child.model_groups
        for name in child.groups[group]
        if not _LLAMA.fullmatch(name)
    ]
    if model_type == "mistral" and getattr(config, "sliding_window", None):
        found.append(f"its attention has a sliding window of {config.sliding_window} tokens")
    if config.hidden_act != "silu":
        found.append(f"its activation is {config.hidden_act}, not silu")
    if not any(not block.attention.removed for block in child.block_configs):
        found.append("no layer has an attention")
    return found
