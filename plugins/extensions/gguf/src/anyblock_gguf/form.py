"""`gguf`: one file that llama.cpp runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from anyblock.contract.cache_spec import head_width
from anyblock.contract.export_format import Child, ExportFormat, llama_obstacles
from anyblock.errors import UnsupportedModelError

from anyblock_gguf.layers import is_uniform, layer_sizes
from anyblock_gguf.tensors import gguf_tensors, rope_factors
from anyblock_gguf.tokenizer import add_tokenizer, tokenizer_obstacles

if TYPE_CHECKING:
    import torch

    from anyblock_gguf.layers import LayerSizes


class GgufFormat(ExportFormat):
    """One GGUF file: llama.cpp's architecture `deci`, which has sizes for every layer, or `llama` where all are alike.

    Class attributes:
        precision: the type of matrices. Vectors are F32, and matrices whose rows cannot be divided into blocks of 32 are
            F16 also where others are Q8_0.
    """

    summary: ClassVar[str] = "one file for llama.cpp, with matrices in F16"
    precision: ClassVar[Literal["F16", "Q8_0"]] = "F16"

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: a Llama with a tokenizer that llama.cpp has."""
        if found := llama_obstacles(child):
            return found
        config = child.view.resolve()
        try:
            rope_factors(config)
        except ValueError as error:
            found.append(str(error))
        return found + tokenizer_obstacles(child.path, config.vocab_size)

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        import gguf
        import numpy as np

        config = child.view.resolve()
        sizes = layer_sizes(child.block_configs, config.num_attention_heads)
        head_dim = head_width(config)
        path = directory / f"model-{self.precision.lower()}.gguf"
        writer = gguf.GGUFWriter(path, "llama" if is_uniform(sizes) else "deci")
        writer.add_file_type(
            gguf.LlamaFileType.MOSTLY_F16 if self.precision == "F16" else gguf.LlamaFileType.MOSTLY_Q8_0
        )
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_sizes(writer, config, sizes, head_dim)
        add_tokenizer(writer, child.path, config.vocab_size)

        def tensors() -> Iterator[tuple[str, torch.Tensor]]:
            if (factors := rope_factors(config)) is not None:
                yield "rope_freqs.weight", factors
            yield from gguf_tensors(child, sizes, hidden=config.hidden_size, head_dim=head_dim)

        for name, tensor in tensors():
            kind = self._kind(tensor)
            block, nbytes = gguf.GGML_QUANT_SIZES[kind]
            writer.add_tensor_info(
                name, tuple(tensor.shape), np.dtype(np.float32), tensor.numel() // block * nbytes, kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors():
            writer.write_tensor_data(self._stored(name, tensor))
        writer.close()

    def _kind(self, tensor: torch.Tensor) -> Any:
        from gguf import GGMLQuantizationType as Kind

        if tensor.dim() == 1:
            return Kind.F32
        return Kind.Q8_0 if self.precision == "Q8_0" and tensor.shape[-1] % 32 == 0 else Kind.F16

    def _stored(self, name: str, tensor: torch.Tensor) -> Any:
        from gguf import GGMLQuantizationType as Kind
        from gguf.quants import quantize

        kind = self._kind(tensor)
        wide = tensor.float()
        if kind != Kind.F32 and not wide.half().isfinite().all():
            raise UnsupportedModelError(
                f"{name} has values that are no float16", hint="export it in a format that keeps the child's dtype"
            )
        return quantize(wide.contiguous().numpy(), kind)


class GgufQ8Format(GgufFormat):
    """The same in 8 bits: blocks of 32 weights with one scale each."""

    summary: ClassVar[str] = "one file for llama.cpp, with matrices in Q8_0"
    precision: ClassVar[Literal["F16", "Q8_0"]] = "Q8_0"


def _add_sizes(writer: Any, config: Any, sizes: list[LayerSizes], head_dim: int) -> None:
    def of(name: str) -> Any:
        values = [getattr(layer, name) for layer in sizes]
        return values[0] if writer.arch == "llama" else values

    writer.add_block_count(len(sizes))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(of("width"))
    writer.add_head_count(of("heads"))
    writer.add_head_count_kv(of("kv_heads"))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
