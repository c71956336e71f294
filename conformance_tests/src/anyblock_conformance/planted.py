"""A model in which it is known which units matter: some of them do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from anyblock.modeling.weights import quiet_loading
from torch import nn

from anyblock_conformance.children import stock_copy
from anyblock_conformance.kinds import smaller_sizes, works_on
from anyblock_conformance.subject import Subject


@dataclass(frozen=True)
class Planted:
    """A subject with useless units.

    Attributes:
        subject: the same family with other weights.
        useless: `{layer: ascending indices}`, int64 `[units]`, or `[experts, units]` where every expert has its own.
    """

    subject: Subject
    useless: dict[int, torch.Tensor]


@torch.no_grad()
def planted_subject(subject: Subject, kind: str) -> Planted | None:
    """Return the subject with about half of the units of a kind made useless, other ones in every layer.

    The module that the kind's importance hook watches tells where units end: its weights for their outputs become zero.

    Returns:
        None where that module is neither a linear map nor a set of experts.
    """
    mixin = subject.mixins[kind]
    model, generator = stock_copy(subject), torch.Generator().manual_seed(23)
    useless: dict[int, torch.Tensor] = {}
    for layer in works_on(subject, kind):
        sizes = smaller_sizes(subject, kind, layer)
        if not sizes:
            continue
        units = mixin.size(subject.blocks[layer])
        path = f"{subject.family.layer_block_name(layer)}.{mixin.hook_target(layer)}"
        weight = _columns(model.get_submodule(path), units)
        if weight is None:
            return None
        # [rows of units, units, entries of a unit, outputs]; the rows are experts, or there is one
        lost = units - sizes[len(sizes) // 2]
        rows = torch.stack(
            [torch.randperm(units, generator=generator)[:lost].sort().values for _ in range(len(weight))]
        )
        for row, chosen in zip(weight, rows, strict=True):
            row[chosen] = 0.0
        useless[layer] = rows if len(rows) > 1 else rows[0]
    folder = subject.place(f"planted-{kind}")
    with quiet_loading():
        model.save_pretrained(folder / "source")
    return Planted(Subject(subject.family, folder, source=folder / "source"), useless)


def _columns(module: nn.Module, units: int) -> torch.Tensor | None:
    """Return a view `[rows, units, …]` of the weights after the units, through which they can be changed."""
    own: Any = getattr(module, "weight", None)
    if isinstance(own, torch.Tensor) and own.dim() == 2:
        inputs = own.t() if isinstance(module, nn.Linear) else own
        return inputs.view(1, units, -1, inputs.shape[1]) if len(inputs) % units == 0 else None
    down = [value for name, value in module.named_parameters(recurse=False) if "down" in name and value.dim() == 3]
    if len(down) != 1:
        return None
    sizes = down[0].shape
    if sizes[2] == units and sizes[1] != units:
        return down[0].data.transpose(1, 2)
    return down[0].data if sizes[1] == units and sizes[2] != units else None
