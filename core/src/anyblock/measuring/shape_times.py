"""Subblocks that are alike take equally long: each distinct shape is timed once, and kept by its content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.checkpoint.atomic import write_json_atomic
from anyblock.contract.cost import LatencyScenario, MeasuredCost, SubblockCalls
from anyblock.measuring.additive_model import FIXED, AdditiveModel
from anyblock.measuring.replay import Recording, fixed_calls, layer_calls, model_calls, record_calls
from anyblock.modeling.device import describe_device
from anyblock.modeling.variants import LayerVariants
from anyblock.progress import Progress

if TYPE_CHECKING:
    import torch

    from anyblock.contract.blocks import BlockConfig
    from anyblock.modeling.layerwise import LayerwiseModel

WHOLE: Final = "model"
"""The key of the whole teacher."""
TOGETHER: Final = 12
"""Shapes that are timed against one another; an interruption loses at most these."""

Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Shape:
    """A subblock to time.

    Attributes:
        layer: a layer that may have it.
        block_config: the block with this half alone; the other one is a no-op.
        load: gives the layer's tensors by checkpoint name.
    """

    layer: int
    block_config: BlockConfig
    load: Callable[[], Tensors]


def shape_key(
    block_config: BlockConfig, tensors: Tensors, layer: int, layer_type: object, cache: object
) -> dict[str, Any]:
    """Return what the time of a subblock depends on, as JSON data; equal for equal subblocks of different layers.

    Args:
        block_config: see `Shape`.
        tensors: its tensors, also on the meta device; only names, shapes and types count.
        layer: the layer's index, which is taken out of the names.
        layer_type: what the model's config calls this layer (sliding or full attention).
        cache: the layer's `CacheSpec`.
    """
    named = re.compile(rf"(^|\.){layer}(?=\.)")
    return {
        "block": block_config.to_dict(),
        "tensors": {
            named.sub(r"\1N", name, count=1): [str(tensor.dtype), *tensor.shape]
            for name, tensor in sorted(tensors.items())
        },
        "layer type": None if layer_type is None else str(layer_type),
        "cache": repr(cache),
    }


class ShapeTimes:
    """Times of shapes in one scenario on one device, kept in a file.

    Args:
        engine: the teacher.
        cost: what is measured.
        scenario: what is timed.
        conditions: everything else that decides about times (versions, dtype); JSON data.
        path: the file; times of other conditions in it are kept.
        repeats: see `measure`.
        together: shapes that are timed against one another, with their weights held at once.
        progress: where to report.
    """

    def __init__(
        self,
        engine: LayerwiseModel,
        cost: MeasuredCost,
        scenario: LatencyScenario,
        *,
        conditions: Mapping[str, Any],
        path: Path,
        repeats: int,
        together: int = TOGETHER,
        progress: Progress,
    ) -> None:
        self._engine = engine
        self._cost = cost
        self._scenario = scenario
        self._path = path
        self._together = together
        self._options: dict[str, Any] = {"device": engine.device, "repeats": repeats, "progress": progress}
        self._where = json.dumps(
            {
                **conditions,
                "scenario": asdict(scenario),
                "device": describe_device(engine.device),
                "repeats": repeats,
            },
            sort_keys=True,
        )
        self._all: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
        self._known = self._all.setdefault(self._where, {})

    def measure(self, shapes: Mapping[str, Shape], *, fixed: str, whole: str | None) -> AdditiveModel:
        """Return the additive model of the shapes, timing those that are not known yet.

        Args:
            shapes: by a key of their content.
            fixed: the key of what is outside the layers.
            whole: the key of the whole teacher, timed to see how far the sum of parts is from it; None where the teacher is
                not to be held in memory at once.

        Raises:
            ExecutionError: a subblock does not run; the message names it.
        """
        missing = {key: shape for key, shape in shapes.items() if key not in self._known}
        if missing:
            recording = record_calls(
                self._engine.model,
                self._engine.layers,
                self._scenario,
                only={shape.layer for shape in missing.values()},
            )
            names = list(missing)
            for start in range(0, len(names), self._together):  # itertools.batched needs Python 3.12
                keys = names[start : start + self._together]
                with _lent(self._engine, [missing[key] for key in keys], recording) as calls:
                    self._time(dict(zip(keys, calls, strict=True)))
        outside: dict[str, Callable[[], SubblockCalls]] = {fixed: self._fixed}
        if whole is not None:
            outside[whole] = self._model
        self._time({key: build() for key, build in outside.items() if key not in self._known})
        times = {key: self._known[key] for key in shapes} | {FIXED: self._known[fixed]}
        return AdditiveModel(self._scenario, times if whole is None else times | {WHOLE: self._known[whole]})

    def whole(self, key: str) -> float:
        """Return the time of the whole model in ms, measured unless `key` is known.

        Raises:
            ExecutionError: the model does not run.
        """
        if key not in self._known:
            self._time({key: self._model()})
        return self._known[key]

    def _model(self) -> SubblockCalls:
        return model_calls(self._engine.model, self._scenario)

    def _fixed(self) -> SubblockCalls:
        from torch import nn

        name = self._engine.family.final_norm_name()
        norm = self._engine.model.get_submodule(name) if name else nn.Identity()
        return fixed_calls(self._engine.model, norm, self._scenario)

    def _time(self, calls: Mapping[str, SubblockCalls]) -> None:
        if not calls:
            return
        self._known.update(self._cost.measure(calls, self._scenario, **self._options))
        write_json_atomic(self._path, self._all)


@contextmanager
def _lent(engine: LayerwiseModel, shapes: Sequence[Shape], recording: Recording) -> Iterator[list[SubblockCalls]]:
    """Build shapes side by side, for as long as they are timed."""
    wanted: list[list[BlockConfig]] = [[] for _ in range(engine.num_layers)]
    for shape in shapes:
        wanted[shape.layer].append(shape.block_config)
    variants = LayerVariants(engine, wanted)
    with ExitStack() as stack:
        layers = [
            stack.enter_context(variants.layer(shape.layer, shape.block_config, shape.load())) for shape in shapes
        ]
        yield [layer_calls(layer, shape.layer, recording) for layer, shape in zip(layers, shapes, strict=True)]
