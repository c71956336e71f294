"""`load_model`: a teacher or a child as an ordinary Hugging Face model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.groups import NOT_LOADED
from anyblock.checkpoint.hub import resolve_model
from anyblock.checkpoint.index import some
from anyblock.checkpoint.quantised import quantisation, quantised
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.contract.blocks import BlockConfig, block_configs_from_json
from anyblock.contract.trust import runs_code
from anyblock.errors import CheckpointError, ConfigError
from anyblock.modeling.agree import said
from anyblock.modeling.complete import complete_skeleton, skeleton_of
from anyblock.modeling.device import as_dtype
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.skeleton import load_hf_config, model_class, refusing, require_materialised
from anyblock.modeling.weights import WeightMap, quiet_loading

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


@runs_code
def load_model(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    family: ModelFamily | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """Load a model whose layers may differ in shape.

    Args:
        path: a subblock checkpoint, a child, also one that `save_pretrained` wrote, an ordinary Hugging Face directory,
            or, as text, a hub id (`owner/name`, `owner/name@revision`).
        device: where the parameters go.
        dtype: the parameters' dtype, also by name; None keeps the checkpoint's.
        family: the adapter to use; None finds the installed one for the checkpoint's `model_type`.
        trust_remote_code: run the code that comes with the checkpoint.
        **options: further options of `from_pretrained` (`device_map`, `attn_implementation`, ...).

    Returns:
        A `PreTrainedModel` in eval mode. Without options a subblock checkpoint on the CPU is memory-mapped, not read; what is
        done to its weights changes no file.

    Raises:
        CheckpointError: a tensor is missing, left over or has the wrong shape; nothing is ever initialised at random.
            Or the directory holds two models, and nothing says which one is newer.
        ConfigError: `config.json` is unusable.
        UnsupportedModelError: the layers differ and no installed adapter serves the model.
        InputError: there is neither such a directory nor such a model on the hub.
    """
    path = path if isinstance(path, Path) else resolve_model(path)
    raw = read_config(path)
    dtype = as_dtype(dtype)
    if "block_configs" not in raw:
        return _from_pretrained(path, None, [], device, dtype, options)
    if family is None:
        from anyblock.family import get_family

        family = get_family(raw["model_type"])
    if options or not is_subblock_checkpoint(path):
        block_configs = block_configs_from_json(raw["block_configs"])
        return _from_pretrained(path, family, block_configs, device, dtype, options)
    return map_model(SubblockCheckpoint.open(path), family, device=device, dtype=dtype)


def map_model(
    checkpoint: SubblockCheckpoint,
    family: ModelFamily,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Build the model of a subblock checkpoint over its memory-mapped files.

    Raises:
        CheckpointError: the files and the config do not agree.
    """
    model = skeleton_of(checkpoint, family, dtype=dtype)
    weights = WeightMap(model)
    for group in checkpoint.model_groups:
        tensors = checkpoint.load(group)
        weights.assign(tensors, device=device, where=f"{checkpoint.path}, group {group}")
    model.tie_weights()
    family.init_rotary_embedding(model, torch.device(device), model.dtype)
    require_materialised(model, str(checkpoint.path))
    for parameter in model.parameters():
        # As `from_pretrained` leaves them: such a model is trained as usual. torch also looks at this without gradients: a
        # matrix that wants none is copied as a whole for the last position of a sequence (`should_fold` in LinearAlgebra.cpp).
        parameter.requires_grad_(parameter.is_floating_point())
    _attach_generation_config(model, checkpoint.path)
    return model


def _from_pretrained(
    path: Path,
    family: ModelFamily | None,
    block_configs: Sequence[BlockConfig],
    device: torch.device | str,
    dtype: torch.dtype | None,
    options: dict[str, Any],
) -> Any:
    # A damaged file is named here, before transformers sees it.
    source = None if _ELSEWHERE & options.keys() else SourceCheckpoint.open(path)
    config = load_hf_config(path)
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if source is not None and isinstance(layers, int) and layers > len(source.tensors):
        raise ConfigError(f"{path}: {layers:,} layers, and the checkpoint has {len(source.tensors):,} tensors")
    subblocks = source is not None and is_subblock_checkpoint(path)
    groups = SubblockCheckpoint.open(path).groups if subblocks else {}
    kept = {name for group in NOT_LOADED & groups.keys() for name in groups[group]}
    method = quantisation(config)
    if source is not None and method is None:  # what quantised weights need, transformers alone knows
        tensors = {name: entry.meta() for name, (_, entry) in source.tensors.items() if name not in kept}
        stated = block_configs
        _, block_configs = complete_skeleton(family, config, stated, tensors, str(path))
        for sentence in said(stated, block_configs, str(path)):
            warnings.warn(sentence, stacklevel=3)
    scope = nullcontext() if family is None else heterogeneous(family, block_configs)
    try:
        with refusing(path), scope, quiet_loading():
            model, info = model_class(config).from_pretrained(
                path,
                config=config,
                dtype=dtype or "auto",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # only so that they are named below, where they are an error
                local_files_only=True,
                use_safetensors=True,
                **options,
            )
    except (CheckpointError, ImportError) as error:
        if method is None:
            raise
        raise quantised(str(path), method, str(error.__cause__ or error)) from error
    names = WeightMap(model)
    left_out = {names.target(name)[0] for name in kept}
    info["unexpected_keys"] = {key for key in info["unexpected_keys"] if key not in left_out and not names.ignores(key)}
    faults = [
        f"{kind.replace('_', ' ')}: {some(sorted(map(str, info[kind])), 6)}"
        for kind in _LOADING_FAULTS
        if info.get(kind)
    ]
    if faults:
        raise CheckpointError(
            f"{path}: {'; '.join(faults)}",
            expected="exactly the tensors that the config asks for",
            hint="the checkpoint is incomplete or its config does not belong to it",
        )
    return model.eval() if "device_map" in options else model.to(device).eval()


_ELSEWHERE = {"gguf_file", "state_dict", "subfolder", "variant"}
"""Options with which the weights are not in the files that a directory is expected to have."""


_LOADING_FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def _attach_generation_config(model: Any, path: Path) -> None:
    if (path / "generation_config.json").is_file() and model.can_generate():
        from transformers import GenerationConfig

        with refusing(path):
            model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
