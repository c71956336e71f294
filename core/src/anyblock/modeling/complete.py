"""Every parameter accounted for: a checkpoint is held to its model by headers alone, before anything is computed with.

A parameter that no file gives would be whatever lay in memory. So each way to a model goes through here: `skeleton_of` opens a
subblock checkpoint, and `complete_skeleton` is what conversion and `load_model` ask of an ordinary directory.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from anyblock.checkpoint.index import some
from anyblock.checkpoint.json_io import shown
from anyblock.checkpoint.quantised import quantisation, quantised
from anyblock.checkpoint.safetensors_writer import Stored, same_bytes
from anyblock.errors import CheckpointError
from anyblock.modeling.agree import agreed_blocks, of_this_architecture, said
from anyblock.modeling.skeleton import build_skeleton, load_hf_config
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.contract.blocks import BlockConfig
    from anyblock.family import ModelFamily

Tensors = Mapping[str, torch.Tensor]


def skeleton_of(
    checkpoint: SubblockCheckpoint, family: ModelFamily, config: Any = None, *, dtype: torch.dtype | None = None
) -> Any:
    """Build the model of a subblock checkpoint on the meta device, once the checkpoint has proved to hold all of it.

    Args:
        checkpoint: the checkpoint.
        family: its adapter.
        config: its Hugging Face configuration, where that is loaded already.
        dtype: the parameters' dtype; None takes the config's.

    The checkpoint's block configs then have the sizes of its tensors, see `complete_skeleton`.

    Raises:
        CheckpointError: a file is damaged, or its tensors are not those of the model; names them.
    """
    config = load_hf_config(checkpoint.path) if config is None else config
    where, stated = str(checkpoint.path), checkpoint.block_configs
    tensors = {name: tensor for group in checkpoint.model_groups for name, tensor in checkpoint.meta(group).items()}
    model, checkpoint.block_configs = complete_skeleton(family, config, stated, tensors, where, dtype=dtype)
    for sentence in said(stated, checkpoint.block_configs, where):
        warnings.warn(sentence, stacklevel=2)
    stored = {
        name: Stored(checkpoint.file(group), entry)
        for group in checkpoint.model_groups
        for name, entry in checkpoint.header(group).tensors.items()
    }
    if differing_heads(model, stored):
        raise CheckpointError(
            f"{checkpoint.path}: config.json ties the head to the embedding, and the files hold different tensors for them",
            expected="a config.json that says tie_word_embeddings: false",
            hint=f"convert it again, which writes that: anyblock convert {checkpoint.path} OUT",
        )
    return model


def complete_skeleton(
    family: ModelFamily | None,
    config: Any,
    block_configs: Sequence[BlockConfig],
    tensors: Tensors,
    where: str,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Any, list[BlockConfig]]:
    """Build the model of a checkpoint on the meta device, once the checkpoint has proved to hold all of it.

    Args:
        family: its adapter; None builds the stock model, of which no block config says anything.
        config: its Hugging Face configuration.
        block_configs: one per layer, as its `config.json` states them.
        tensors: its tensors, by checkpoint name, on the meta device.
        where: names the checkpoint.
        dtype: the parameters' dtype; None takes the config's.

    Returns:
        The model, and its block configs: where those in `config.json` contradict the tensors, with the sizes that these decide.

    Raises:
        CheckpointError: the tensors are not those of the model; names them.
    """
    if family is None:
        blocks = list(block_configs)
    else:
        blocks = of_this_architecture(family, config, block_configs, where)
    model = build_skeleton(family, config, blocks, dtype=dtype)
    try:
        require_complete(model, tensors, where)
    except CheckpointError:
        agreed = blocks if family is None else agreed_blocks(family, config, blocks, tensors)
        if agreed == blocks:
            raise
        model, blocks = build_skeleton(family, config, agreed, dtype=dtype), agreed
        require_complete(model, tensors, where)
    return model, blocks


def differing_heads(model: Any, stored: Mapping[str, Stored]) -> bool:
    """Return whether a checkpoint holds different tensors for parameters that the configuration ties.

    transformers then ties neither, whatever the configuration says (`PreTrainedModel.tie_weights`).

    Args:
        model: the model on the meta device.
        stored: where the checkpoint's tensors are, by checkpoint name; their bytes are compared, a little at a time.
    """
    if not model.all_tied_weights_keys:
        return False
    weights = WeightMap(model)
    places = {weights.target(name)[0]: place for name, place in stored.items()}
    pairs = [(places.get(target), places.get(source)) for target, source in model.all_tied_weights_keys.items()]
    return any(first and second and not same_bytes(first, second) for first, second in pairs)


def require_complete(model: Any, tensors: Tensors, where: str) -> None:
    """Check that a checkpoint holds every parameter and stored buffer of a model in its shape, once, and nothing else.

    What is tied to another tensor may be absent, and what transformers ignores may be there.

    Args:
        model: the model on the meta device; it is not changed.
        tensors: the checkpoint's, by checkpoint name, on the meta device.
        where: names the checkpoint.

    Raises:
        CheckpointError: names the tensors that are missing, of another shape, left over or stored twice.
    """
    from transformers.core_model_loading import revert_weight_conversion

    state = model.state_dict(keep_vars=True)
    tied = set(revert_weight_conversion(model, {name: state[name] for name in model.all_tied_weights_keys}))
    written = revert_weight_conversion(model, dict(state))
    as_written = written.keys() - tied <= tensors.keys() <= written.keys()
    faults = list(_misshapen(tensors, written) if as_written else _faults(model, tensors, written))
    method = quantisation(model.config, tensors if faults else (), where)
    if not faults and method is not None:  # scales may be in no file at all
        faults = [_stored_as(name, tensor) for name, tensor in tensors.items() if tensor.dtype.itemsize < 2]
    if method is not None and "transform_config" in method:
        faults.append("its weights are rotated, and the model does not rotate what they are multiplied with")
    if not faults:
        return
    if method is not None:
        raise quantised(where, method, faults[0])
    raise CheckpointError(
        f"{where}: {'; '.join(faults[:4])}{f'; and {len(faults) - 4} more faults' if len(faults) > 4 else ''}",
        expected="exactly the tensors that config.json asks for",
        hint="the checkpoint is incomplete, or the config.json is another model's: download or write it again",
    )


def _misshapen(tensors: Tensors, written: Tensors) -> Iterator[str]:
    for name, tensor in tensors.items():
        want = written[name]
        if tensor.shape != want.shape:
            yield f"{shown(name)} has the shape {tuple(tensor.shape)} and not {tuple(want.shape)}"
        elif want.is_floating_point() and not tensor.is_floating_point():
            yield _stored_as(name, tensor)


def _stored_as(name: str, tensor: torch.Tensor) -> str:
    return f"{shown(name)} is stored as {str(tensor.dtype).removeprefix('torch.')}"


def _faults(model: Any, tensors: Tensors, written: Tensors) -> Iterator[str]:
    """Let transformers load the names and shapes into a copy of the model, and yield what does not go together.

    Args:
        model, tensors: see `require_complete`.
        written: the tensors of the model, by the names under which transformers would write them.
    """
    own = copy.deepcopy(model)
    own.tie_weights()
    state = dict(own.state_dict(keep_vars=True))
    weights = WeightMap(own)
    targets = {name: weights.target(name) for name in tensors}
    known = {name: tensor for name, tensor in tensors.items() if targets[name][0] in state}
    info = weights.convert(known, device="meta")

    absent: dict[str, list[str]] = {}
    for name in written.keys() - tensors.keys():
        absent.setdefault(weights.target(name)[0], []).append(name)
    failed = {name: f"has the shape {tuple(found)} and not {tuple(want)}" for name, found, want in info.mismatched_keys}
    failed |= {name: f"cannot be computed: {text}" for name, text in info.conversion_errors.items()}
    # What is computed from several tensors fails where one of these is missing: an expert, for instance.
    short = failed.keys() & absent.keys() & {target for target, computes in targets.values() if computes}
    given = {id(state[name]) for name in state.keys() - info.missing_keys}
    missing = [name for name, tensor in state.items() if id(tensor) not in given]
    if missing or short:
        lacking = [name for target in {*missing, *short} for name in absent.get(target, ())]
        yield f"it lacks {some(sorted(lacking or missing))}"
    if left := sorted(n for n in tensors.keys() - known.keys() if not weights.ignores(targets[n][0])):
        yield f"the model has no place for {some(left)}"
    yield from (f"{shown(name)} {text}" for name, text in sorted(failed.items()) if name not in short)
    first: dict[str, str] = {}
    for name, tensor in known.items():
        target, computes = targets[name]
        other = first.setdefault(target, name)
        if other != name and not (computes and targets[other][1]):
            yield f"{shown(other)} and {shown(name)} are both {shown(target)}"
        if state[target].is_floating_point() and not tensor.is_floating_point():
            yield _stored_as(name, tensor)
