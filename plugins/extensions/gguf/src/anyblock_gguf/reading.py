"""A GGUF file as a Hugging Face checkpoint.

transformers reads GGUF files as well (`from_pretrained(gguf_file=...)`), but takes no notice of scaled rotary embeddings, soft caps
and multipliers, and cuts words in its own way. Here the export decides instead: a configuration is accepted when the export would
write the file's own metadata for it, and weights are what the export would have made the file's tensors of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gguf
import numpy as np
from anyblock.contract.services import services
from anyblock.errors import CheckpointError, UsageError

from anyblock_gguf.configuration import architecture_of, configuration, require_same_metadata
from anyblock_gguf.reverse import expected_shapes, reversed_tensors
from anyblock_gguf.written_tokenizer import write_tokenizer

if TYPE_CHECKING:
    import torch

    from anyblock_gguf.architecture import Architecture

_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class GgufFile:
    """What a file states, and its tensors.

    Attributes:
        path: the file.
        fields: its metadata by key.
        tensors: its tensors by name, which `read` makes plain.

    Raises:
        CheckpointError: it is not a whole GGUF file, is one of several parts, or has tensors of a type that cannot be made plain.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
            self.fields = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as error:  # whatever numpy raises of damaged bytes
            raise CheckpointError(
                f"{path} cannot be read as a GGUF file: {error}", expected="a whole GGUF file", hint="download it again"
            ) from error
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        if (parts := self.fields.get("split.count", 1)) > 1:
            raise CheckpointError(
                f"{path} is one of {parts} parts",
                hint="join them with llama.cpp: llama-gguf-split --merge FIRST WHOLE.gguf",
            )
        for kind in {tensor.tensor_type for tensor in self.tensors.values()}:
            size = gguf.GGML_QUANT_SIZES[kind][1]
            try:
                gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
            except NotImplementedError as error:
                raise CheckpointError(
                    f"{path} has tensors of the type {kind.name}, which gguf's Python package does not read",
                    hint="use a file of the same model in another type, Q8_0 for instance",
                ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, rows first."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in float32."""
        import torch

        stored = self.tensors[name]
        plain = gguf.quants.dequantize(stored.data, stored.tensor_type)
        return torch.from_numpy(np.array(plain, dtype=np.float32)).reshape(self.shape(name))

    def most(self) -> str:
        """Return the type that takes the most bytes, `Q8_0` for instance."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_bytes)
        return max(sizes, key=sizes.__getitem__)


def write_checkpoint(path: Path, folder: Path, *, dtype: str | None = None, overwrite: bool = False) -> str:
    """Write the model of a GGUF file as a Hugging Face checkpoint, a layer at a time; return a sentence on it.

    Args:
        path: the file.
        folder: the checkpoint, which appears when it is complete.
        dtype: of the weights, by name; None takes the file's own, and bfloat16 for quantized ones.
        overwrite: replace the folder.

    Raises:
        CheckpointError: the file is damaged, or says something that the checkpoint could not say.
        UnsupportedModelError: its architecture or its tokenizer is not read.
        UsageError: there is no such dtype.
        OutputExistsError: the folder is there.
    """
    import torch

    if dtype is not None and dtype not in _DTYPES.values():
        raise UsageError(f"the dtype {dtype!r}", expected=f"one of {', '.join(_DTYPES.values())}")
    file = GgufFile(path)
    config = configuration(file)
    architecture = architecture_of(file, config)
    require_same_metadata(file, architecture)
    layers = _layers(config)
    _require_same_tensors(file, architecture, layers)
    config.dtype = chosen = dtype or _DTYPES.get(file.most(), "bfloat16")
    with services().output_folder(folder, path, overwrite=overwrite) as work:
        config.save_pretrained(work)
        write_tokenizer(file, config, work)
        weight_map: dict[str, str] = {}
        for index, names in enumerate(layers):
            shard = f"model-{index + 1:05}-of-{len(layers):05}.safetensors"
            tensors = reversed_tensors(architecture, names, file.read)
            _save(tensors, work / shard, getattr(torch, chosen))
            weight_map |= dict.fromkeys(tensors, shard)
        (work / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return f"{folder} holds the {config.model_type} model of {path.name} ({file.most()}), {len(layers) - 1} layers"


def _save(tensors: Mapping[str, torch.Tensor], path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _layers(config: Any) -> list[dict[str, tuple[int, ...]]]:
    """Return the names and shapes of the checkpoint's tensors, those of each layer together, and of the rest at the end."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    tied = set(model.all_tied_weights_keys)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    found: list[dict[str, tuple[int, ...]]] = [{} for _ in range(config.num_hidden_layers + 1)]
    for name, tensor in revert_weight_conversion(model, state).items():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        found[int(layer[1]) if layer else -1][name] = tuple(tensor.shape)
    return found


def _require_same_tensors(file: GgufFile, architecture: Architecture, layers: list[dict[str, tuple[int, ...]]]) -> None:
    wanted = expected_shapes(architecture, layers)
    for name in sorted(wanted.keys() | file.tensors.keys()):
        if name not in wanted:
            raise CheckpointError(
                f"{file.path} has the tensor {name}, for which a {architecture.config.model_type} has no place"
            )
        if name not in file.tensors or file.shape(name) != wanted[name]:
            found = f"{name} of the shape {file.shape(name)}" if name in file.tensors else f"no tensor {name}"
            raise CheckpointError(f"{file.path} has {found}", expected=f"{name} of the shape {wanted[name]}")
