"""The export undone: what a checkpoint's tensors were when the export made the file's tensors of them.

The export only moves values about, and adds 1 to some. So it is given where each value is in place of the values, and its answer
says where the file's values go. Nothing has to be written twice, and the two directions cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from anyblock.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    import torch

    from anyblock_gguf.architecture import Architecture

Shapes = Mapping[str, tuple[int, ...]]
_FACTORS: Final = "rope_freqs.weight"


def expected_shapes(architecture: Architecture, layers: Sequence[Shapes]) -> dict[str, tuple[int, ...]]:
    """Return the file's tensors for a checkpoint whose tensors have these names and shapes.

    Raises:
        UnsupportedModelError: llama.cpp has none for one of them.
    """
    import torch

    found: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        tensors = _exported(architecture, {name: torch.empty(shape, device="meta") for name, shape in layer.items()})
        found |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return found


def reversed_tensors(
    architecture: Architecture, shapes: Shapes, read: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the checkpoint's tensors of one layer in float32.

    Args:
        architecture: of the file.
        shapes: the tensors' shapes by name.
        read: returns one of the file's tensors.

    Raises:
        CheckpointError: a number in the file is not finite.
    """
    import torch

    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    starts = torch.tensor([0, *sizes]).cumsum(0)
    numbered = dict(enumerate(shapes.items()))
    of = _exported(architecture, {name: torch.full(shape, number) for number, (name, shape) in numbered.items()})
    at = _exported(architecture, {name: torch.arange(sizes[n]).reshape(shape) for n, (name, shape) in numbered.items()})
    added = _exported(architecture, {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()})
    values = torch.full((int(starts[-1]),), torch.nan)
    for name, shift in added.items():
        if name != _FACTORS:
            places = starts[(of[name] - shift).long()] + (at[name] - shift).long()
            values[places.flatten()] = (read(name) - shift).flatten()
    if not values.isfinite().all():
        raise CheckpointError(f"{', '.join(added)}: not every number is finite", hint="download the file again")
    return {name: values[starts[n] : starts[n + 1]].reshape(shape) for n, (name, shape) in numbered.items()}


def _exported(architecture: Architecture, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    try:
        return dict(architecture.tensors(["all"], lambda _: tensors))
    except KeyError as error:
        raise UnsupportedModelError(
            f"the model has the tensor {error.args[0]}, which llama.cpp's {architecture.name} does not have"
        ) from error
