"""The model with a smaller hidden size, as far as its config and shapes go; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anyblock.checkpoint.config_view import config_view
from anyblock.config.schema import RunConfig
from anyblock.errors import UnsupportedModelError
from anyblock.pipeline.model_source import Source
from anyblock.pruning.hidden import HiddenSizePruningMixIn

if TYPE_CHECKING:
    from anyblock.family import ModelFamily


def narrowed_source(config: RunConfig, source: Source) -> Source | None:
    """Return the model with the hidden size that the run asks for, as far as config and shapes go; None without one.

    Raises:
        UnsupportedModelError: the family cannot change its hidden size.
        UsageError: the size is not legal.
    """
    settings = config.pruning.hidden_size
    sizes = settings.absolute_sizes(int(source.text_config.hidden_size)) if settings else ()
    if not sizes:
        return None
    mixin = stream_mixin(source.family)
    changes = mixin.resize_config(source.text_config, sizes[0])
    view = config_view(resized(source.config.to_dict(), source, changes))
    text = source.family.language_model_config(view)
    first = source.block_configs[0]
    shapes = {group: mixin.narrow(0, tensors, first, first, text) for group, tensors in source.shapes.items()}
    return replace(source, config=view, shapes=shapes)


def resized(raw: Mapping[str, Any], source: Source, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json` of `source` with these attributes of the language model changed."""
    text = source.text_config
    if text == source.config:
        return {**raw, **changes}
    key = next(key for key, value in raw.items() if isinstance(value, dict) and getattr(source.config, key) == text)
    return {**raw, key: {**raw[key], **changes}}


def stream_mixin(family: ModelFamily) -> HiddenSizePruningMixIn:
    """Return the family's mixin for the residual stream.

    Raises:
        UnsupportedModelError: it has none.
    """
    mixin = family.pruning_mixins().get(HiddenSizePruningMixIn.kind)
    if not isinstance(mixin, HiddenSizePruningMixIn):
        raise UnsupportedModelError(
            f"the adapter of {family.model_type} cannot change the hidden size",
            expected="a family whose `anyblock conformance` table lists hidden_size",
            hint="leave out pruning.hidden_size",
        )
    return mixin
