"""Writing a child back in MXFP4, as gpt-oss is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from anyblock.contract.export_format import Child, ExportFormat

from anyblock_gpt_oss.mxfp4 import BLOCK, encode

if TYPE_CHECKING:
    import torch

_QUANTIZED: Final = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
_AS_IT_IS: Final = ("model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head")


class Mxfp4Format(ExportFormat):
    """A Hugging Face directory with the experts in MXFP4, and everything else as it is.

    `anyblock.json`, which comes along, lists for every layer the teacher's experts that it keeps, in their new order.
    Experts that were MXFP4 in the teacher and went unchanged have the values that they had.
    """

    summary: ClassVar[str] = "a gpt-oss directory with its experts in MXFP4, for anyblock and transformers"
    width_multiples: ClassVar[tuple[int, ...]] = (BLOCK,)

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: numbers are stored in blocks of 32 inputs."""
        names = (name for group in child.groups.values() for name in group if name.endswith(_QUANTIZED))
        inputs = {name: child.shape(name)[1] for name in names}
        return [
            f"{name} has {size} inputs, not a multiple of {BLOCK}"
            for name, size in sorted(inputs.items())
            if size % BLOCK
        ]

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`; layers keep their block configs, in the configuration."""
        quantization = {"quant_method": "mxfp4", "modules_to_not_convert": list(_AS_IT_IS)}
        blocks = [block.to_dict() for block in child.block_configs]
        config = {**child.config, "quantization_config": quantization, "block_configs": blocks}
        child.write_directory(directory, config=config, tensors=quantized)


def quantized(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors, those of experts' weights as blocks and scales."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        parts = encode(tensor) if name.endswith(_QUANTIZED) else (tensor,)
        result.update(zip((f"{name}_blocks", f"{name}_scales") if len(parts) == 2 else (name,), parts, strict=True))
    return result
