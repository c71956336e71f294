"""Layer-wise execution: the engine under calibration, scoring, repair and evaluation.

The stock model runs, but its decoder layers are tapped. One pass records which arguments every layer receives (masks,
positions, rotary embeddings); afterwards each layer is run on its own, on hidden states, with its weights mapped from
the subblock files. A second kind of pass sends given hidden states through the stock tail (final norm, head, any
scaling or capping of logits). Nothing about an architecture is re-implemented.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES, group_name, layer_of
from anyblock.errors import ExecutionError
from anyblock.modeling.activation_cache import form_of
from anyblock.modeling.complete import skeleton_of
from anyblock.modeling.finite import require_finite_output, require_finite_weights
from anyblock.modeling.no_op import hidden_states_of
from anyblock.modeling.placement import move_buffers, moved, place_layers
from anyblock.modeling.process_memory import give_back
from anyblock.modeling.skeleton import load_hf_config
from anyblock.modeling.spool import Spool, SpooledTensors
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


@dataclass(frozen=True)
class LayerCall:
    """What a layer receives besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """A batch ready for layer-wise execution.

    Attributes:
        input_ids: [batch, length].
        hidden: input of the first layer, [batch, length, hidden].
        calls: one entry per layer.
    """

    input_ids: torch.Tensor
    hidden: torch.Tensor
    calls: list[LayerCall]


class _Recorded(Exception):  # noqa: N818 - it ends a recording pass, nothing has failed
    """Ends a pass whose result is not wanted."""


@dataclass
class _Taps:
    """What the tapped layers do in the current pass; the default is to run as they are."""

    calls: list[LayerCall] | None = None
    first: torch.Tensor | None = None
    inject: torch.Tensor | None = None
    injected: bool = False
    wrap: dict[type[nn.Module], Callable[[torch.Tensor], Any]] = field(default_factory=dict)


class LayerwiseModel:
    """A subblock checkpoint that is executed layer by layer.

    Args:
        checkpoint: the teacher, or a child.
        family: its adapter.
        device: where layers run, and where hidden states are between them.
        dtype: the parameters' dtype; None keeps the checkpoint's.
        max_resident: how many layers may hold weights at once; None for all.
        room: bytes for layers by device, to spread them over several; embedding, norm and head stay on `device`.

    Attributes:
        places: the device of every layer.
    """

    def __init__(
        self,
        checkpoint: SubblockCheckpoint,
        family: ModelFamily,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        max_resident: int | None = None,
        room: Mapping[torch.device, int] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.family = family
        self.device = torch.device(device)
        self.block_configs = list(checkpoint.block_configs)
        self.hf_config = load_hf_config(checkpoint.path)
        self.config = family.language_model_config(self.hf_config)
        self.model = skeleton_of(checkpoint, family, self.hf_config, dtype=dtype)
        self.weights = WeightMap(self.model)
        self.layers: list[nn.Module] = [
            self.model.get_submodule(family.layer_block_name(index)) for index in range(len(self.block_configs))
        ]
        self.max_resident = max_resident
        self.places = [self.device] * self.num_layers if room is None else place_layers(self.layers, room, self.dtype)
        self._resident: OrderedDict[int, None] = OrderedDict()
        self._taps = _Taps()
        self._load_outside_layers()
        self._learn_forms()

    @property
    def num_layers(self) -> int:
        """The number of decoder layers."""
        return len(self.layers)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the hidden states."""
        return self.model.dtype  # type: ignore[no-any-return]

    # -- running ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, input_ids: torch.Tensor) -> Batch:
        """Embed a batch and record what each layer will receive.

        Args:
            input_ids: [batch, length].
        """
        taps = self._taps = _Taps(calls=[], wrap=self._taps.wrap)
        try:
            with suppress(_Recorded):
                self._forward(input_ids)
        finally:
            self._taps = _Taps(wrap=taps.wrap)
        if taps.first is None or taps.calls is None or len(taps.calls) != self.num_layers:
            raise ExecutionError(
                f"{len(taps.calls or [])} of {self.num_layers} decoder layers ran in one forward pass",
                expected="every layer once, in order",
                hint="the adapter's layer_block_name does not name the decoder layers",
            )
        return Batch(input_ids=input_ids, hidden=taps.first, calls=taps.calls)

    def prepare_all(self, batches: Iterable[torch.Tensor], spool: Spool) -> tuple[list[Batch], SpooledTensors]:
        """Prepare every batch and give the first layer's inputs to the spool; the batches then only have their shape.

        Args:
            batches: token ids, [batch, length] each.
            spool: where hidden states are kept.
        """
        prepared: list[Batch] = []
        hidden = spool.collect()
        for ids in batches:
            batch = self.prepare(ids)
            hidden.append(batch.hidden)
            prepared.append(replace(batch, hidden=batch.hidden.to("meta")))
        return prepared, hidden

    def run(self, index: int, hidden: torch.Tensor, batch: Batch, *, layer: nn.Module | None = None) -> torch.Tensor:
        """Run layer `index`, or a variant of it, on hidden states [batch, length, hidden]; returns the same shape.

        Raises:
            ExecutionError: the output of the layer itself is not finite; a variant's is for the caller to judge.
        """
        call, own = batch.calls[index], hidden.clone()  # a layer without halves may write to what it is given (Gemma 4)
        output = self._ran(index, self.use(index) if layer is None else layer, own, *call.args, **call.kwargs)
        output = output if isinstance(output, torch.Tensor) else output[0]
        if layer is None:
            require_finite_output(output, index)
        return output

    def logits(self, hidden: torch.Tensor, batch: Batch, *, keep: slice | None = None) -> torch.Tensor:
        """Send hidden states after the last layer through the stock tail.

        Args:
            hidden: [batch, length, hidden].
            batch: the batch they come from.
            keep: which positions' logits to compute; None for all.

        Returns:
            [batch, kept, vocabulary].
        """
        # A model may put tokens of its own in front, which have hidden states and no logits (CPM-Ant).
        positions = torch.arange(batch.input_ids.shape[1], device=hidden.device)[keep or slice(None)]
        options = {"logits_to_keep": positions} if self._keeps_some and keep is not None else {}
        output = self._inject(hidden, batch, options).logits
        return output if options or keep is None else output[:, positions]  # type: ignore[no-any-return]

    def final_hidden(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the output of the final norm, [batch, length, hidden]; `hidden` itself where there is none."""
        norm = self.family.final_norm_name()
        if not norm:
            return hidden
        found: list[torch.Tensor] = []

        def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            if self._taps.injected:  # the module may norm the embeddings as well (NanoChat)
                found.append(output)
                raise _Recorded

        handle = self.model.get_submodule(norm).register_forward_hook(keep)
        try:
            with suppress(_Recorded):
                self._inject(hidden, batch, {})
        finally:
            handle.remove()
        return found[0]

    def _ran(self, index: int, layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a layer, or a variant of it, on its device, and bring what it returns back to the others'."""
        place = self.places[index]
        if place == self.device:
            return layer(*args, **kwargs)
        return moved(layer(*moved(args, place), **moved(kwargs, place)), self.device)

    # -- weights ----------------------------------------------------------------------------------------------------

    def use(self, index: int) -> nn.Module:
        """Return layer `index` with its weights loaded, dropping the layer used longest ago when too many are."""
        if index not in self._resident:
            while self.max_resident is not None and len(self._resident) >= self.max_resident:
                self._drop(next(iter(self._resident)))
                give_back()
            for half in (*HALVES, "other"):
                group = group_name(index, half)
                if group in self.checkpoint.groups:
                    self._assign(group, self.places[index])
        self._resident[index] = None
        self._resident.move_to_end(index)
        return self.layers[index]

    def release(self) -> None:
        """Give back the weights of all layers; a layer that is used again is loaded again."""
        for index in list(self._resident):
            self._drop(index)

    @contextmanager
    def exchanged(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Let other tensors, by checkpoint name, stand outside the layers within this context."""
        layers = {id(module) for layer in self.layers for module in layer.modules()}
        kept = [(module, dict(module._parameters)) for module in self.model.modules() if id(module) not in layers]
        try:
            self.weights.assign(tensors, device=self.device, where="what is exchanged")
            self.model.tie_weights()
            yield
        finally:
            for module, parameters in kept:
                module._parameters.update(parameters)

    def _assign(self, group: str, device: torch.device) -> None:
        tensors = self.checkpoint.load(group)
        require_finite_weights(tensors, dtype=self.dtype, where=str(self.checkpoint.file(group)))
        self.weights.assign(tensors, device=device, where=f"group {group}")

    def _drop(self, index: int) -> None:
        del self._resident[index]
        for module in self.layers[index].modules():
            for name, tensor in module._parameters.items():
                if tensor is not None:
                    module._parameters[name] = nn.Parameter(tensor.to("meta"), requires_grad=False)

    def _load_outside_layers(self) -> None:
        for group in self.checkpoint.model_groups:
            if layer_of(group) is None:
                self._assign(group, self.device)
        self.model.tie_weights()
        self.family.init_rotary_embedding(self.model, self.device, self.model.dtype)
        for layer, place in zip(self.layers, self.places, strict=True):
            move_buffers(layer, place)

    # -- taps -------------------------------------------------------------------------------------------------------

    @property
    def _keeps_some(self) -> bool:
        return "logits_to_keep" in inspect.signature(type(self.model).forward).parameters

    def _forward(self, input_ids: torch.Tensor, **options: Any) -> Any:
        return self.model(input_ids=input_ids.to(self.device), use_cache=False, **options)

    def _inject(self, hidden: torch.Tensor, batch: Batch, options: dict[str, Any]) -> Any:
        self._taps = _Taps(inject=hidden, wrap=self._taps.wrap)
        try:
            return self._forward(batch.input_ids, **options)
        finally:
            self._taps = _Taps(wrap=self._taps.wrap)

    def _tapped(self, index: int, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        taps = self._taps
        if taps.calls is None and taps.inject is None:
            return self._ran(index, partial(type(layer).forward, self.use(index)), *args, **kwargs)
        hidden = hidden_states_of(args, kwargs)
        if taps.inject is not None:
            taps.injected = index == self.num_layers - 1
            return taps.wrap[type(layer)](taps.inject if taps.injected else hidden)
        assert taps.calls is not None
        rest = dict(kwargs)
        positional = args if rest.pop("hidden_states", None) is not None else args[1:]
        taps.first = hidden if index == 0 else taps.first
        taps.calls.append(LayerCall(positional, rest))
        if index == self.num_layers - 1:
            raise _Recorded
        return taps.wrap[type(layer)](hidden)

    @torch.no_grad()
    def _learn_forms(self) -> None:
        """Run one layer of each class for real on two tokens, to see in which form a layer returns its output."""
        wrap: dict[type[nn.Module], Callable[[torch.Tensor], Any]] = {}

        def probe(index: int, layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
            """Run the first layer of each class for real; the others return their input in the form that was seen."""
            if type(layer) in wrap:
                return wrap[type(layer)](hidden_states_of(args, kwargs))
            output = self._ran(index, partial(type(layer).forward, self.use(index)), *args, **kwargs)
            wrap[type(layer)] = form_of(output)
            return output

        for index, layer in enumerate(self.layers):
            layer.forward = partial(probe, index, layer)
        self._forward(torch.zeros(1, 2, dtype=torch.long))
        self._taps = _Taps(wrap=wrap)
        for index, layer in enumerate(self.layers):
            layer.forward = partial(self._tapped, index, layer)
