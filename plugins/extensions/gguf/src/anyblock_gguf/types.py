"""llama.cpp's storage types as the search chooses them: what a checkpoint's tensors become in a file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gguf
import torch
from anyblock.contract.cache_spec import head_width
from anyblock.contract.storage_type import StorageType
from anyblock.errors import UnsupportedModelError
from gguf import GGMLQuantizationType as Kind

from anyblock_gguf.families import families
from anyblock_gguf.layers import ZERO_WIDTH
from anyblock_gguf.storage import allowed_kind, stored
from anyblock_gguf.tokenizer import add_tokenizer, tokenizer_obstacles

if TYPE_CHECKING:
    from anyblock.contract.blocks import Half

USUAL: Final = ("q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k")
TYPES: Final = ("f16", "bf16", *USUAL, "q5_1", "q5_0", "q4_0", "iq4_nl", "mxfp4")
_EXACT: Final = re.compile(r"bias$|\.(?:gate|router|shared_expert_gate|conv1d)\.weight$")
"""Checkpoint names of what `storage.wanted_kind` keeps in F32 besides vectors."""
_TURNED: Final = re.compile(r"\.experts\.(?:gate_up|down)_proj$")
"""Matrices of experts that are [experts, in, out], and turned around in a file."""
_METADATA: Final = 8192
"""Bytes that sizes and constants of a model take at most, and the factors of rotary frequencies."""
_LAYER: Final = 4096
"""Bytes that names, shapes and places of a layer's tensors take at most, the gaps between these, and its own sizes."""


class GgufType(StorageType):
    """One storage type.

    Args:
        name: llama.cpp's, in small letters.
    """

    format = "gguf"
    plain = "f16"

    def __init__(self, name: str) -> None:
        self._kind = Kind[name.upper()]
        size, nbytes = gguf.GGML_QUANT_SIZES[self._kind]
        self.usual = name in USUAL
        self.summary = f"llama.cpp: {nbytes * 8 / size:.4g} bits a weight" + (f", rows of {size}" if size > 1 else "")

    def stored_as(self, name: str, shape: Sequence[int]) -> str:
        """See `StorageType.stored_as`."""
        return str(self._stored(name, shape).name.lower())

    def nbytes(self, name: str, shape: Sequence[int]) -> int:
        """See `StorageType.nbytes`."""
        size, nbytes = gguf.GGML_QUANT_SIZES[self._stored(name, shape)]
        return int(prod(shape) // size * nbytes)

    def rounded(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """See `StorageType.rounded`."""
        kind = self._stored(name, tensor.shape)
        if kind == Kind.F32:
            return tensor.float()
        if _TURNED.search(name):
            tensor = tensor.transpose(1, 2)
        read = torch.from_numpy(gguf.quants.dequantize(stored(name, tensor, kind, {}), kind)).reshape(tensor.shape)
        return read.transpose(1, 2).contiguous() if _TURNED.search(name) else read

    def expresses(self, model_type: str, changes: Collection[str]) -> bool:
        """See `StorageType.expresses`: one of the family's architectures has a size for each layer there."""
        return any(
            {"no_op" if own.lacks_halves else "", *own.varies}.issuperset(changes)
            for own in families().get(model_type, ())
        )

    def frame(self, model: Path, config: Any, layers: int) -> int:
        """See `StorageType.frame`: the tokenizer as it is written, and an upper bound for the rest."""
        known = families()
        if config.model_type not in known:
            raise UnsupportedModelError(
                f"{model} cannot be stored in a GGUF file: its model_type is {config.model_type}",
                expected=f"one of {', '.join(known)}",
                hint="leave out storage.types and the budget on bytes",
            )
        if found := tokenizer_obstacles(model, config.vocab_size):
            raise UnsupportedModelError(
                f"{model} cannot be stored in a GGUF file: {'; '.join(found)}",
                hint="leave out storage.types and the budget on bytes",
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.gguf"
            writer = gguf.GGUFWriter(path, known[config.model_type][-1].name)
            add_tokenizer(writer, model, config.vocab_size)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
            return path.stat().st_size + _METADATA + layers * _LAYER

    def removed(self, layer: int, half: Half, config: Any) -> int:
        """See `StorageType.removed`: llama.cpp may need a half of zeros there, see `layers.layer_sizes`."""
        if half == "attention" and layer:
            return 0
        width = ZERO_WIDTH if half == "ffn" else head_width(config)
        shapes = {"down": (config.hidden_size, width), "norm": (config.hidden_size,)}
        inputs = ("gate", "up") if half == "ffn" else ("q", "k", "v")
        zeros = GgufType("q8_0")
        return sum(zeros.nbytes(name, own) for name, own in shapes.items()) + len(inputs) * zeros.nbytes(
            "", (width, config.hidden_size)
        )

    def _stored(self, name: str, shape: Sequence[int]) -> Kind:
        if len(shape) == 1 or _EXACT.search(name):
            return Kind.F32
        return allowed_kind(self._kind, shape[1] if _TURNED.search(name) else shape[-1])
