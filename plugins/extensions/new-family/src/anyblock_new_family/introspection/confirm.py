"""Trying what was inferred, on the tiny model: nothing is claimed that was not seen to hold."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import torch
from anyblock.contract.blocks import BlockConfig, group_name
from anyblock.contract.pruning_mixin import PruningMixIn
from anyblock.costs.probed_cache import kept_by_layers, run_with_cache
from anyblock.errors import AnyBlockError, CheckpointError, UnsupportedModelError
from anyblock.family import ModelFamily
from anyblock.importance.router import silenced_experts
from anyblock.importance.voting import RankedChoiceVotingHook
from anyblock.modeling.skeleton import build_skeleton, require_materialised
from anyblock.modeling.weights import WeightMap

from anyblock_new_family.introspection.model import TinyModel

_TOLERANCE: Final = 1e-4
_STEPS: Final = ((5, 1, 1, 2, 1, 1, 1), (5, *[1] * 7))
"""In which steps models are tried to decode: some compute several tokens after a prompt otherwise (RecurrentGemma)."""


class Trial:
    """A family on its tiny model.

    Args:
        family: the inferred family.
        tiny: the model.

    Raises:
        CheckpointError: a tensor is in no group or in several, or the model built from the block configs is another one.
    """

    def __init__(self, family: ModelFamily, tiny: TinyModel) -> None:
        self.family, self.tiny = family, tiny
        self.text = family.language_model_config(tiny.config)
        self.checkpoint_layer: str = family.descriptor.checkpoint_layer  # type: ignore[attr-defined]
        self.blocks = family.create_block_configs(tiny.config)
        patterns = family.layer_name_predicates(len(self.blocks), tiny.config)
        self.groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in patterns}
        for name, tensor in tiny.tensors.items():
            found = [group for group, pattern in patterns.items() if pattern.fullmatch(name)]
            if len(found) != 1:
                raise CheckpointError(f"{name} is in {' and '.join(found) or 'no group'}", expected="one group")
            self.groups[found[0]][name] = tensor
        self.logits = _logits(tiny.model, tiny.ids)
        self._require(self._child(self.blocks, {}), self.logits, "the model built from the block configs")

    def no_op(self, half: str) -> None:
        """Remove a half of every layer by itself, and of all at once.

        Raises:
            CheckpointError: what is left is not the residual path.
        """
        layers = [index for index, block in enumerate(self.blocks) if not block.half(half).no_op]
        steps = self._steps()
        for chosen in ([[layer] for layer in layers] + [layers]) if layers else []:
            blocks = list(self.blocks)
            for layer in chosen:
                blocks[layer] = blocks[layer].with_half(half, no_op=True)
            gone = {group_name(layer, half) for layer in chosen}
            child = self._child(blocks, {group: {} for group in gone})
            silent = copy.deepcopy(self.tiny.model)
            names = {self.tiny.names[name] for group in gone for name in self.groups[group]}
            state = silent.state_dict(keep_vars=True)
            left = set(child.state_dict()) & names
            if left:
                raise CheckpointError(
                    f"without {half} there still is {sorted(left)[0]}", expected="none of its tensors"
                )
            with torch.no_grad():
                for name in names:
                    state[name].zero_()
            what = f"the model without {half} of layers {chosen}"
            self._require(child, _logits(silent, self.tiny.ids), what)
            if steps and (chosen == [0] or len(chosen) > 1):  # positions are counted in the first layer's cache
                found, expected = _cached(child, self.tiny.ids, steps), _logits(child, self.tiny.ids)
                if _distance(found, expected) < _TOLERANCE or not self._decodes(silent, steps):
                    continue  # the stock model itself, with these weights zero, may decode otherwise with a cache
                self._close(found, expected, f"{what}, with a cache")

    @torch.no_grad()
    def cache(self, family: ModelFamily) -> None:
        """Compare what the model keeps between decoding steps with what this variant of the family predicts.

        Raises:
            CheckpointError: they differ.
            UnsupportedModelError: the model does not show what its layers keep.
        """
        model = self.tiny.model
        layers = [model.get_submodule(self.family.layer_block_name(index)) for index in range(len(self.blocks))]
        for length in (3, 12):
            kept = kept_by_layers(model, layers, self.tiny.ids[:, :length])
            for index, (block, own) in enumerate(zip(self.blocks, kept, strict=True)):
                spec = family.cache_spec(self.tiny.config, block, index)
                elements = sum(tensor.numel() for tensor in own.tensors)
                if elements != spec.elements(length) * len(self.tiny.ids):
                    raise CheckpointError(
                        f"layer {index} keeps {elements} elements of {length} tokens",
                        expected=f"{spec.elements(length) * len(self.tiny.ids)}, as cache_spec says",
                    )

    def prune(self, mixin: PruningMixIn) -> None:
        """Prune units of a mixin's kind in every layer, and compare with the teacher whose removed units are silent.

        Raises:
            CheckpointError: shapes or outputs differ.
        """
        tried, kind = False, mixin.kind
        for pick in (0, -1):
            blocks, changed = list(self.blocks), dict[str, dict[str, torch.Tensor]]()
            teacher = copy.deepcopy(self.tiny.model)
            weights = WeightMap(teacher)
            with ExitStack() as stack:
                for layer, block in enumerate(self.blocks):
                    if not mixin.applies_to(block):
                        continue
                    sizes = [size for size in mixin.legal_sizes(block, self.text) if size < mixin.size(block)]
                    if not sizes:
                        continue
                    tried, group = True, group_name(layer, mixin.half)
                    order = torch.arange(mixin.size(block)).flip(0)  # of two units, a random order may be their own
                    own = mixin.sort(layer, self.groups[group], block, order, self.text)
                    blocks[layer] = mixin.resize(block, sizes[pick], self.text)
                    changed[group] = mixin.narrow(layer, own, block, blocks[layer], self.text)
                    try:
                        own = mixin.mask(layer, own, block, blocks[layer], self.text)
                    except UnsupportedModelError:
                        removed = mixin.removed(block, sizes[pick], self.text).tolist()
                        path = (
                            f"{self.family.layer_block_name(layer)}.{mixin.hook_target(layer, RankedChoiceVotingHook)}"
                        )
                        stack.enter_context(silenced_experts(teacher.get_submodule(path), removed, mixin.size(block)))
                    weights.assign(own, device="cpu", where=f"masked {kind}")
                expected = _logits(teacher, self.tiny.ids)
            self._require(self._child(blocks, changed), expected, f"the model with fewer {kind}")
        if not tried:
            raise CheckpointError(f"no layer of the tiny model can lose {kind}", expected="a layer with such units")

    def _steps(self) -> tuple[int, ...] | None:
        """Return in which steps the tiny model computes the same with a cache as without one; None where it never does."""
        return next((steps for steps in _STEPS if self._decodes(self.tiny.model, steps)), None)

    def _decodes(self, model: Any, steps: tuple[int, ...]) -> bool:
        """Return whether a stock model computes the same with a cache as without one."""
        try:
            return _distance(_cached(model, self.tiny.ids, steps), _logits(model, self.tiny.ids)) < _TOLERANCE
        except Exception:  # noqa: BLE001 - a model that cannot decode with a cache is not held to it
            return False

    def _child(self, blocks: Sequence[BlockConfig], changed: Mapping[str, Mapping[str, torch.Tensor]]) -> Any:
        model = build_skeleton(self.family, self.tiny.config, blocks, dtype=torch.float32)
        weights = WeightMap(model)
        for group, tensors in self.groups.items():
            weights.assign(changed.get(group, tensors), device="cpu", where=group)
        model.tie_weights()
        self.family.init_rotary_embedding(model, torch.device("cpu"), model.dtype)
        require_materialised(model, "the tiny model")
        return model

    def _require(self, model: Any, expected: torch.Tensor, what: str) -> None:
        self._close(_logits(model, self.tiny.ids), expected, what)

    def _close(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        distance = _distance(found, expected)
        if not distance < _TOLERANCE:
            raise CheckpointError(f"{what} differs by {distance:.1e}", expected=f"at most {_TOLERANCE}")


def reason(error: Exception) -> str:
    """Return an error as one line, for a capability's note."""
    text = str(error) if isinstance(error, AnyBlockError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:100]


@torch.no_grad()
def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


@torch.no_grad()
def _cached(model: Any, ids: torch.Tensor, steps: tuple[int, ...]) -> torch.Tensor:
    cache, parts, done = None, [], 0
    for step in steps:
        try:
            output, cache = run_with_cache(model, ids[:, done : done + step], cache)
        except TypeError:
            return torch.full((1,), torch.inf)
        parts.append(output.logits)
        done += step
    return torch.cat(parts, dim=1)


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
