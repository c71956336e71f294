"""MXFP4: 32 neighbouring numbers as 4-bit floats with one power of two (OCP Microscaling Formats specification 1.0)."""

from __future__ import annotations

from typing import Final

import torch

BLOCK: Final = 32
_BIAS: Final = 127
_LARGEST_EXPONENT: Final = 2  # of a 4-bit float: 6 is 1.5 · 2²
# Behind each of these, the next of 0, 0.5, 1, 1.5, 2, 3, 4, 6 is nearer.
_MIDDLES: Final = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


def encode(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the experts' weights `[experts, in, out]` as transformers' `convert_moe_packed_tensors` takes them.

    A block's exponent is that of its largest number less that of the largest 4-bit float, and numbers are rounded to the
    nearest, ties to the even code (section 6.3 of the specification). Weights that were MXFP4 come back as they were,
    whatever their codes were: with the new exponent, too, every one of them is a 4-bit float.

    Returns:
        blocks: uint8 `[experts, out, in / 32, 16]`, two codes a byte, the first one in the low half.
        scales: uint8 `[experts, out, in / 32]`, exponents with a bias of 127.
    """
    parts = [_encode(expert.t().contiguous().float()) for expert in weights]
    return torch.stack([blocks for blocks, _ in parts]), torch.stack([scales for _, scales in parts])


def _encode(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    grouped = rows.reshape(len(rows), -1, BLOCK)
    # frexp counts from 0.5: the largest number lies between 2^(exponent - 1) and 2^exponent.
    exponent = torch.frexp(grouped.abs().amax(dim=-1)).exponent - 1 - _LARGEST_EXPONENT
    exponent = exponent.clamp(min=-_BIAS, max=_BIAS)
    scaled = torch.ldexp(grouped, -exponent.unsqueeze(-1))
    middles = torch.tensor(_MIDDLES)
    # A middle itself belongs to the even code: the lower one of the first, the upper one of the second, and so on.
    middles[1::2] = torch.nextafter(middles[1::2], torch.zeros(()))
    codes = torch.bucketize(scaled.abs(), middles).to(torch.uint8) | torch.signbit(scaled).to(torch.uint8) << 3
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponent + _BIAS).to(torch.uint8)
