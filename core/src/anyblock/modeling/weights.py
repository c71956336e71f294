"""Putting checkpoint tensors into a model that was built on the meta device.

A checkpoint's tensor names differ from the module's in many architectures. The translation is always the model's own
conversion mapping in transformers: a plain renaming is applied here without copying, anything that computes (stacking
experts, splitting projections) is left to transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import nn

from anyblock.errors import CheckpointError


def owners_of(model: nn.Module) -> dict[str, list[str]]:
    """Return, by every name of a parameter, the paths of all modules that have it: several where modules are tied."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: [other.rpartition(".")[0] for other in same] for same in names.values() for name in same}


class WeightMap:
    """Where a model's checkpoint tensors go.

    Args:
        model: a `PreTrainedModel`, usually on the meta device.
    """

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        self._model = model
        self._mapping = get_model_conversion_mapping(model)
        self._renamings = [entry for entry in self._mapping if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in self._mapping if isinstance(entry, WeightConverter)]
        self._state = dict(model.state_dict())
        self._plan: dict[str, tuple[str, bool]] = {}

    def target(self, name: str) -> tuple[str, bool]:
        """Return the module name for a checkpoint name, and whether transformers has to compute the tensor."""
        if name not in self._plan:
            from transformers.core_model_loading import rename_source_key

            prefix = self._model.base_model_prefix
            renamed, source = rename_source_key(name, self._renamings, self._converters, prefix, self._state)
            if renamed not in self._state and name in self._state:
                renamed, source = name, None
            self._plan[name] = (renamed, source is not None)
        return self._plan[name]

    def parameter(self, name: str) -> tuple[nn.Module, str] | None:
        """Return the module and attribute that hold what the checkpoint calls `name`.

        None where transformers computes the module's tensor from several, or where it is not a parameter: then there is nothing
        that could be trained and written back under that name.
        """
        target, computes = self.target(name)
        path, _, leaf = target.rpartition(".")
        if computes:
            return None
        owner = self._model.get_submodule(path)
        return (owner, leaf) if leaf in owner._parameters else None

    def ignores(self, name: str) -> bool:
        """Return whether a tensor (by module name) that has no place in the model is left out of it.

        That is what transformers ignores, and layers beyond the last that predict further tokens.
        """
        if name in self._state:
            return False
        patterns = list(self._model._keys_to_ignore_on_load_unexpected or ())
        text = self._model.config.get_text_config(decoder=True)
        last, further = (getattr(text, name, None) or 0 for name in ("num_hidden_layers", "num_nextn_predict_layers"))
        patterns += [rf"(^|\.)layers\.{index}\." for index in range(last, last + further)]
        buffers = {buffer.rpartition(".")[2] for buffer, _ in self._model.named_buffers()}
        # Buffers that old files have in every layer, or that were stored once; see transformers'
        # `_adjust_missing_and_unexpected_keys`.
        patterns += [r"rotary_emb\.inv_freq"] if "inv_freq" in buffers else []
        patterns += [r"(^|\.)position_ids$"] if "position_ids" in buffers else []
        return any(re.search(pattern, name) for pattern in patterns)

    def assign(self, tensors: Mapping[str, torch.Tensor], *, device: torch.device | str, where: str) -> None:
        """Put `tensors` (by checkpoint name) into the model, in the dtype in which the model was built.

        What transformers ignores is left out.

        Raises:
            CheckpointError: a tensor has no place in the model, or another shape; names the tensor and `where`.
        """
        computed: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            target, computes = self.target(name)
            if computes:
                computed[name] = tensor
            elif not self.ignores(target):
                set_tensor(self._model, target, tensor, device=device, where=where)
        if computed:
            info = self.convert(computed, device=device)
            faults = [f"{name}: no such tensor in the model" for name in sorted(info.unexpected_keys)]
            faults += [
                f"{name}: shape {tuple(found)}, expected {tuple(want)}" for name, found, want in info.mismatched_keys
            ]
            faults += [f"{name}: {text}" for name, text in info.conversion_errors.items()]
            if faults:
                raise CheckpointError(
                    f"{where}: {'; '.join(map(str, faults[:6]))}", expected="the tensors of this model"
                )

    def shapes(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        """Return, by module name, the shapes in which `tensors` (by checkpoint name, on the meta device) would be put.

        They need not be those of the model, which has to be on the meta device as well.
        """
        computed = {name: tensor for name, tensor in tensors.items() if self.target(name)[1]}
        found = {self.target(name)[0]: tuple(tensor.shape) for name, tensor in tensors.items() if name not in computed}
        if computed:
            info = self.convert(computed, device="meta")
            fit = {self.target(name)[0] for name in computed} - info.conversion_errors.keys()
            found |= {name: tuple(self._state[name].shape) for name in fit if name in self._state}
            found |= {name: tuple(shape) for name, shape, _ in info.mismatched_keys}
        return found

    def convert(self, tensors: Mapping[str, torch.Tensor], *, device: torch.device | str) -> Any:
        """Let transformers put `tensors` (by checkpoint name) into the model, and return what it says of it."""
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        dtype = self._model.dtype
        # A plan for several devices is an argument of its own up to transformers 5.15, and a part of `load` since.
        known = signature(convert_and_load_state_dict_in_model).parameters
        plan: dict[str, Any] = {"tp_plan": None} if "tp_plan" in known else {}
        load = LoadStateDictConfig(
            dtype=dtype,
            dtype_plan=self._model._get_dtype_plan(dtype),
            weight_mapping=self._mapping,
            device_map={"": torch.device(device)},
        )
        with quiet_loading():
            info, _ = convert_and_load_state_dict_in_model(self._model, dict(tensors), load, **plan)
        return info


def set_tensor(model: nn.Module, name: str, tensor: torch.Tensor, *, device: torch.device | str, where: str) -> None:
    """Replace the parameter or buffer `name`, keeping the dtype in which the model was built; shares memory if it can.

    Raises:
        CheckpointError: there is no such tensor, or it has another shape.
    """
    path, _, leaf = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
        old = owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]
    except (AttributeError, KeyError) as error:
        raise CheckpointError(
            f"{where}: the model has no tensor {name}", expected="only tensors of this model"
        ) from error
    if old is None or old.shape != tensor.shape:
        wanted = "none" if old is None else tuple(old.shape)
        raise CheckpointError(f"{where}: {name} has shape {tuple(tensor.shape)}", expected=f"shape {wanted}")
    value = tensor.to(device=device, dtype=old.dtype)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' progress bars and load report for a while; our own progress and checks replace them."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
