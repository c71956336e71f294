"""Layers of other shapes for a model that runs layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import nn

from anyblock.contract.blocks import BlockConfig
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.placement import move_buffers
from anyblock.modeling.process_memory import give_back
from anyblock.modeling.skeleton import build_skeleton
from anyblock.modeling.weights import WeightMap


class LayerVariants:
    """Every other shape that a layer is to be tried in.

    A layer is only ever built inside its model's own constructor, so variants are taken from whole models on the meta
    device, each of which holds one variant for every layer. They cost no memory for weights.

    Args:
        engine: the teacher.
        wanted: for every layer, the block configs it is to be tried with.
    """

    def __init__(self, engine: LayerwiseModel, wanted: Sequence[Sequence[BlockConfig]]) -> None:
        self._engine = engine
        teacher = engine.block_configs
        rows = zip_longest(*(dict.fromkeys(options) for options in wanted))
        self._columns = [[block or own for block, own in zip(row, teacher, strict=True)] for row in rows]
        self._place = {
            (i, block): column for column, blocks in enumerate(self._columns) for i, block in enumerate(blocks)
        }
        self._built: dict[int, tuple[Any, WeightMap]] = {}

    @contextmanager
    def layer(self, index: int, block_config: BlockConfig, tensors: Mapping[str, torch.Tensor]) -> Iterator[nn.Module]:
        """Lend layer `index` in the shape `block_config`, with `tensors` (by checkpoint name) as its weights.

        Raises:
            KeyError: this shape was not announced.
            CheckpointError: the tensors do not fit the shape.
        """
        model, weights = self._model(self._place[index, block_config])
        layer = model.get_submodule(self._engine.family.layer_block_name(index))
        weights.assign(tensors, device=self._engine.places[index], where=f"a variant of layer {index}")
        lent = [(m, name, t.dtype) for m in layer.modules() for name, t in m._parameters.items() if t is not None]
        try:
            yield layer
        finally:
            for module, name, dtype in lent:
                empty = torch.empty_like(module.get_parameter(name), device="meta", dtype=dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=False)
            if self._engine.max_resident is not None:
                give_back()

    def trainable(self, index: int, block_config: BlockConfig, names: Iterable[str]) -> dict[str, nn.Parameter]:
        """Turn parameters of a layer that is lent at the moment into float32 ones with gradients.

        Args:
            index: the layer.
            block_config: its shape.
            names: checkpoint names; those without a parameter of their own (`WeightMap.parameter`) are left out.

        Returns:
            `{checkpoint name: parameter}`.
        """
        _, weights = self._model(self._place[index, block_config])
        found: dict[str, nn.Parameter] = {}
        for name in names:
            place = weights.parameter(name)
            if place is not None:
                owner, leaf = place
                value: torch.Tensor = owner.get_parameter(leaf)
                owner._parameters[leaf] = found[name] = nn.Parameter(value.detach().float().clone())
        return found

    def _model(self, column: int) -> tuple[Any, WeightMap]:
        if column not in self._built:
            engine = self._engine
            model = build_skeleton(engine.family, engine.hf_config, self._columns[column], dtype=engine.dtype)
            weights = WeightMap(model)
            engine.family.init_rotary_embedding(model, engine.device, engine.dtype)
            for index, place in enumerate(engine.places):
                move_buffers(model.get_submodule(engine.family.layer_block_name(index)), place)
            self._built[column] = model, weights
        return self._built[column]
