"""Tensors as other writers spell them: by their modules' names, without the base model's prefix, or with experts fused.

transformers loads all of these, and writes them as the published files have them. A subblock checkpoint has that form, which is
what a family's patterns know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from anyblock.errors import CheckpointError
from anyblock.modeling.weights import WeightMap

if TYPE_CHECKING:
    import torch


class Respelling:
    """Where tensors whose names no pattern of a family takes belong in the published form.

    Args:
        model: the model on the meta device.
        tensors: the checkpoint's, by name, on the meta device.
        patterns: those of the family; tensors that one of them takes stay as they are.

    Attributes:
        names: `{published name: name}` of tensors that are copied.
        parts: `{published name: name}` of tensors that are parts of another one, as an expert's are of fused ones.

    Raises:
        CheckpointError: two tensors would get one name.
    """

    def __init__(self, model: Any, tensors: Mapping[str, torch.Tensor], patterns: Collection[re.Pattern[str]]) -> None:
        self._model = model
        self._modules: dict[str, str] = {}
        self._last: tuple[torch.Tensor | None, dict[str, torch.Tensor]] = (None, {})
        self.names: dict[str, str] = {}
        self.parts: dict[str, str] = {}
        state, weights = model.state_dict(), WeightMap(model)

        def is_known(name: str) -> bool:
            return any(pattern.fullmatch(name) for pattern in patterns)

        for name, tensor in tensors.items():
            found = [name]
            module, computes = ("", False) if is_known(name) else weights.target(name)
            if module in state and not computes:
                self._modules[name] = module
                published = list(self._published(name, tensor))
                found = published if all(map(is_known, published)) else found
            for new in found:
                other = self.names.get(new) or self.parts.get(new)
                if other is not None:
                    raise CheckpointError(
                        f"{other!r} and {name!r} are both {new!r}", expected="every tensor of the model once"
                    )
                (self.names if len(found) == 1 else self.parts)[new] = name

    def compute(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """Return the part of a tensor that has this published name, also on the meta device."""
        if self._last[0] is not whole:  # its other parts are asked for next
            self._last = (whole, self._published(self.parts[name], whole))
        return self._last[1][name]

    def _published(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        from transformers.core_model_loading import revert_weight_conversion

        return dict(revert_weight_conversion(self._model, {self._modules[name]: tensor}))
