"""The residual stream of decoders with RMS norms."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from anyblock.contract.cache_spec import head_width
from anyblock.contract.importance_hook import ImportanceHook
from anyblock.contract.residual_pruning import HIDDEN_SIZE, ResidualPruning
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis
from anyblock.errors import PluginError
from anyblock.importance.norms import LayerNormContributionHook


@dataclass(frozen=True)
class RMSNormStream(ResidualPruning):
    """The residual stream of a decoder, dense or with experts, whose norms are RMS norms (`w · x / rms`).

    A norm of the child divides by the mean over its own channels; `mask` scales the teacher's norms accordingly, so that
    the two agree up to the norm's epsilon.

    Args:
        prefix: the decoder's checkpoint prefix, over `embed_tokens`, `layers` and `norm`; the head is `lm_head`.
        attention, ffn: names of the two modules inside a layer.
        readers: linear modules that read the stream, an expert's and the router among them.
        writers: linear modules that write to it.
        norms: the norms inside a layer; the hook watches what the first one returns.
        fused_readers, fused_writers: `{tensor below the ffn: dimension}` of those that all experts share.
        multiple: of which number of channels a child has a multiple, as far as the model's own hidden size is one.

    Raises:
        PluginError: there is no norm to watch.
    """

    prefix: str = "model"
    attention: str = "self_attn"
    ffn: str = "mlp"
    readers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "gate")
    writers: tuple[str, ...] = ("o_proj", "down_proj")
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    fused_readers: Mapping[str, int] = field(default_factory=dict)
    fused_writers: Mapping[str, int] = field(default_factory=dict)
    multiple: int = 1

    def __post_init__(self) -> None:
        if not self.norms:
            raise PluginError(
                f"{HIDDEN_SIZE}: the layers have no norm whose output ranks the channels",
                expected="the name of at least one norm inside a layer",
                hint=f'name one in attention_norms, or take the kind back with not_implemented = ("{HIDDEN_SIZE}",)',
            )

    @cached_property
    def _rules(self) -> tuple[tuple[re.Pattern[str], int, Silence], ...]:
        """Which tensors touch the stream: the whole name, the dimension of the channels, what silences a channel there."""
        prefix, layer = re.escape(self.prefix), rf"{re.escape(self.prefix)}\.layers\.\d+\."
        ffn = rf"{layer}{re.escape(self.ffn)}\."
        linear = rf"{layer}{_any((self.attention, self.ffn))}(?:\.experts\.\d+|\.shared_experts?)?\."
        found = [
            (rf"{linear}{_any(self.readers)}\.weight", 1, Silence.KEEP),
            (r"lm_head\.weight", 1, Silence.KEEP),
            *((ffn + re.escape(name), dim, Silence.KEEP) for name, dim in self.fused_readers.items()),
            (rf"{linear}{_any(self.writers)}\.(?:weight|bias)", 0, Silence.ZERO),
            (rf"{prefix}\.embed_tokens\.weight", 1, Silence.ZERO),
            *((ffn + re.escape(name), dim, Silence.ZERO) for name, dim in self.fused_writers.items()),
            (rf"{layer}{_any(self.norms)}\.weight", 0, Silence.NORM),
            (rf"{prefix}\.norm\.weight", 0, Silence.NORM),
        ]
        return tuple((re.compile(pattern), dim, silence) for pattern, dim, silence in found)

    def axes(self, names: Iterable[str]) -> tuple[TensorAxis, ...]:
        """See `ResidualPruning.axes`."""
        return tuple(
            TensorAxis(name, dim, (Segment(silence=silence),))
            for name in names
            for pattern, dim, silence in self._rules
            if pattern.fullmatch(name)
        )

    def legal_sizes(self, config: Any) -> Sequence[int]:
        """See `ResidualPruning.legal_sizes`: sizes that transformers reads back; of a Llama, multiples of its query heads."""
        hidden = int(config.hidden_size)
        step = math.gcd(hidden, self.multiple)
        own = config.resolve() if hasattr(config, "resolve") else config
        if not hasattr(type(own), "validate_architecture"):
            return range(step, hidden + 1, step)
        own = copy.copy(own)
        return [size for size in range(step, hidden + 1, step) if _is_valid(own, own.validate_architecture, size)]

    def child_config(self, config: Any, size: int) -> dict[str, Any]:
        """See `ResidualPruning.child_config`."""
        return {HIDDEN_SIZE: size, "head_dim": head_width(config)}

    def supported_hooks(self) -> tuple[type[ImportanceHook], ...]:
        """See `ResidualPruning.supported_hooks`."""
        return (LayerNormContributionHook,)

    def hook_target(self, layer_index: int, hook: type[ImportanceHook] | None = None) -> str:
        """Return the path of the norm in front of the attention."""
        return self.norms[0]


def _is_valid(config: Any, validate: Callable[[], object], size: int) -> bool:
    config.hidden_size = size
    try:
        validate()
    except ValueError:
        return False
    return True


def _any(names: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(map(re.escape, names))})"
