"""Weights that are stored as 8-bit numbers, with a scale for the whole, for each row or for each block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_SCALES: Final = {"fp8": "weight_scale_inv", "compressed-tensors": "weight_scale", "fbgemm_fp8": "weight_scale"}


class ScaledStorage:
    """The hooks that make such weights plain. Without `weight_block_size` the scales have to divide the weight."""

    @hookimpl
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: every weight with scales; those of its inputs go with it, and are not used."""
        settings = getattr(config, "quantization_config", None) or {}
        known, scale = set(names), _SCALES.get(settings.get("quant_method", ""), "")
        if not scale or any(name.endswith("_zero_point") for name in names):
            return None
        parts = ("weight", scale, "activation_scale", "input_scale")
        stems = [name.removesuffix(scale) for name in names if name.endswith(f".{scale}")]
        found = {f"{stem}weight": tuple(stem + part for part in parts if stem + part in known) for stem in stems}
        return {name: sources for name, sources in found.items() if name in known} or None

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: `W · scale` in float32, rounded to the model's dtype.

        Raises:
            CheckpointError: the scales do not go with the weight.
        """
        import torch

        weight, settings = sources[name], config.quantization_config
        key = next(key for key in sources if key.startswith(f"{name}_scale"))
        scale = (sources[key].float() - 127).exp2() if sources[key].dtype == torch.uint8 else sources[key].float()
        scale = scale.reshape(1, 1) if scale.numel() == 1 else scale
        sizes = list(zip(weight.shape, scale.shape, strict=False))
        block = settings.get("weight_block_size") or [max(1, size // count) for size, count in sizes]
        expected = [-(-size // step) for size, step in zip(weight.shape, block, strict=False)]
        packed = not weight.is_floating_point() and settings.get("quant_method") != "compressed-tensors"
        if packed or weight.dim() != 2 or list(scale.shape) != expected:
            raise CheckpointError(
                f"{key} has shape {list(scale.shape)}, and {name} is stored as {str(weight.dtype).removeprefix('torch.')}",
                expected=f"{expected}, for {name} {list(weight.shape)} of 8-bit floats in blocks of {block}",
                hint="use the model that was quantised; its card usually names it",
            )
        spread = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        return (weight.float() * spread[: weight.shape[0], : weight.shape[1]]).to(
            stated_dtype(config) or torch.bfloat16
        )


def stated_dtype(config: Any) -> torch.dtype | None:
    """Return the dtype that a configuration states for its weights; None where it states none."""
    from anyblock.modeling.device import as_dtype

    return as_dtype(config.dtype)
