"""Weights that are stored as numbers of 8 bits or less, with a scale for the whole, for each row, group or block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.hookspecs import hookimpl
from anyblock.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_SCALES: Final = {"fp8": "weight_scale_inv", "compressed-tensors": "weight_scale", "fbgemm_fp8": "weight_scale"}
_PARTS: Final = ("weight", "weight_packed", "weight_zero_point", "weight_g_idx", "weight_shape")
_INPUTS: Final = ("activation_scale", "input_scale", "input_zero_point")


class ScaledStorage:
    """The hooks that make such weights plain. Without `weight_block_size` the scales have to divide the weight."""

    @hookimpl
    def dequantize(self, names: Sequence[str], config: Any) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`: every weight with scales; those of its inputs go with it, and are not used."""
        from anyblock.checkpoint.quantised import not_covered

        settings = getattr(config, "quantization_config", None) or {}
        known, scale = set(names), _SCALES.get(settings.get("quant_method", ""), "")
        if not scale or not_covered(settings):
            return None
        parts = (*_PARTS, scale, *_INPUTS)
        stems = [name.removesuffix(scale) for name in names if name.endswith(f".{scale}")]
        found = {f"{stem}weight": tuple(stem + part for part in parts if stem + part in known) for stem in stems}
        own = [name for name in found if name in known or {f"{name}_packed", f"{name}_shape"} <= known]
        return {name: found[name] for name in own} or None

    @hookimpl
    def dequantize_tensor(self, name: str, sources: Mapping[str, torch.Tensor], config: Any) -> torch.Tensor:
        """See `FamilySpec.dequantize_tensor`: `(W - zero point) · scale` in float32, rounded to the model's dtype.

        Raises:
            CheckpointError: the scales do not go with the weight, or its numbers are packed in another way.
        """
        import torch

        settings = config.quantization_config
        key = next(key for key in sources if key.startswith(f"{name}_scale"))
        weight, shift, order = (sources.get(name + part) for part in ("", "_zero_point", "_g_idx"))
        if weight is None:
            rows, columns = sources[f"{name}_shape"].tolist()
            weight = _unpacked(sources[f"{name}_packed"], columns)
            shift = None if shift is None else _unpacked(shift.T, rows).T
        scale = (sources[key].float() - 127).exp2() if sources[key].dtype == torch.uint8 else sources[key].float()
        scale = scale.reshape(1, 1) if scale.numel() == 1 else scale
        sizes = list(zip(weight.shape, scale.shape, strict=False))
        block = settings.get("weight_block_size") or [max(1, size // count) for size, count in sizes]
        expected = [-(-size // step) for size, step in zip(weight.shape, block, strict=False)]
        packed = not weight.is_floating_point() and settings.get("quant_method") != "compressed-tensors"
        shifted = shift is None or shift.numel() == scale.numel()
        if packed or weight.dim() != 2 or list(scale.shape) != expected or not shifted:
            zeros = "" if shift is None else f", {name}_zero_point {list(shift.shape)}"
            stored = str(weight.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{key} has shape {list(scale.shape)}{zeros}, and {name} is stored as {stored}",
                expected=f"{expected}, for {name} {list(weight.shape)} of 8-bit numbers in blocks of {block}",
                hint="use the model that was quantised; its card usually names it",
            )
        row, column = (
            torch.arange(size, device=scale.device) // step for size, step in zip(weight.shape, block, strict=True)
        )
        if order is not None and not order.is_meta and order.min() >= 0:  # -1 stands for the usual order
            column = order.long()
        plain = weight.float()
        if shift is not None:
            plain = plain - shift.float().reshape(scale.shape)[row][:, column]
        return (plain * scale[row][:, column]).to(stated_dtype(config) or torch.bfloat16)


def _unpacked(words: torch.Tensor, count: int) -> torch.Tensor:
    """Return the numbers that rows of 32-bit words hold, [rows, count]: the first one lowest, from a half below 0 on.

    Raises:
        CheckpointError: the words are not as many as they take in 1, 2, 4 or 8 bits.
    """
    import torch

    bits = next((bits for bits in (8, 4, 2, 1) if -(-count * bits // 32) == words.shape[1]), None)
    if bits is None:
        raise CheckpointError(
            f"rows of {words.shape[1]} words hold {count} numbers", expected="1, 2, 4 or 8 bits for each"
        )
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    numbers = (words[..., None] >> shifts & (1 << bits) - 1) - (1 << bits - 1)
    return numbers.flatten(1)[:, :count].to(torch.int8)


def stated_dtype(config: Any) -> torch.dtype | None:
    """Return the dtype that a configuration states for its weights; None where it states none."""
    from anyblock.modeling.device import as_dtype

    return as_dtype(config.dtype)
