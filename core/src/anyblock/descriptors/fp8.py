"""Checkpoints whose linear weights are stored as 8-bit floats, each block of a weight with a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.base import DescriptorBase
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

SUFFIX: Final = "_scale_inv"


class BlockScaledStorage(DescriptorBase):
    """Hooks for checkpoints that hold `W` and `W_scale_inv`, as those of DeepSeek-V3 and the FP8 releases of others.

    A block of `quantization_config.weight_block_size` entries (rows, columns) is multiplied by one scale; the last block
    of a row or column may be cut off. A checkpoint without such scales is left as it is. Put it before the other bases.
    """

    @hookimpl
    def dequantize(self, names: Sequence[str]) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: every tensor that has scales."""
        known = set(names)
        return {name: (name, name + SUFFIX) for name in names if name + SUFFIX in known} or None

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: `W · scale` in float32, rounded to the model's dtype.

        Raises:
            CheckpointError: the scales do not go with the weight.
        """
        import torch

        weight, scale = sources[name], sources[name + SUFFIX]
        block = config.quantization_config["weight_block_size"]
        expected = [-(-size // step) for size, step in zip(weight.shape, block, strict=True)]
        if list(scale.shape) != expected:
            raise CheckpointError(
                f"{name + SUFFIX} has shape {list(scale.shape)}",
                expected=f"{expected}, for {name} {list(weight.shape)} in blocks of {block}",
            )
        spread = scale.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        result = weight.float() * spread[: weight.shape[0], : weight.shape[1]]
        return result.to(stated_dtype(config) or torch.bfloat16)


def stated_dtype(config: Any) -> torch.dtype | None:
    """Return the dtype that a configuration states for its weights; None where it states none."""
    from anyblock.modeling.device import as_dtype

    return as_dtype(config.dtype)
