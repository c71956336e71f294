"""Widths that vLLM runs fast."""

from __future__ import annotations

from typing import Final

MARLIN: Final = (128, 64)
"""Its Marlin kernels for quantized weights take matrices whose inputs are a multiple of 128, and outputs one of 64.

An FFN's width is the inputs of one matrix and the outputs of the others.
"""
