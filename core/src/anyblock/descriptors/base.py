"""What every descriptor shares: paths below one decoder prefix, lazily imported classes, and neutral answers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.contract.capabilities import Capability, Support
from anyblock.contract.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.export_format import ExportFormat
    from anyblock.contract.importance_hook import ImportanceHook

TINY_SIZES: Final[Mapping[str, int]] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
"""Sizes that most families' `conformance_config` begins from."""
ROTARY_BUFFER: Final = r"\.rotary_emb\.inv_freq"
"""The end of a tensor's name that models no longer have, as a regular expression."""


class DescriptorBase:
    """Hooks that do not depend on what is inside a layer.

    Class attributes that a family sets or keeps:
        decoder_layer: dotted path of the decoder layer class, or several, imported only when a model is built.
        decoder_prefix: module path of the decoder, under which `embed_tokens`, `layers` and `norm` live.
        embedding, final_norm, layers: names below the prefix.
        head: module path of the output head.
        checkpoint_prefix: the decoder's prefix in *checkpoint* names where it differs from `decoder_prefix`.
        checkpoint_head: the output head's prefix in checkpoint names where it differs from `head`.
        text_config: the attribute of a multimodal model's config that holds the language model's.
        extra_groups: `{group: regular expression}` of tensors that are kept as they are, such as a vision tower's.
    """

    decoder_layer: ClassVar[str | tuple[str, ...]]
    decoder_prefix: ClassVar[str] = "model"
    checkpoint_prefix: ClassVar[str | None] = None
    embedding: ClassVar[str] = "embed_tokens"
    final_norm: ClassVar[str] = "norm"
    layers: ClassVar[str] = "layers"
    head: ClassVar[str] = "lm_head"
    checkpoint_head: ClassVar[str | None] = None
    text_config: ClassVar[str | None] = None
    extra_groups: ClassVar[Mapping[str, str]] = {}

    @property
    def checkpoint_layer(self) -> str:
        """The prefix of one layer's tensors in a checkpoint, with `{layer_idx}`."""
        prefix = self.decoder_prefix if self.checkpoint_prefix is None else self.checkpoint_prefix
        return f"{prefix}.{self.layers}.{{layer_idx}}"

    @property
    def weights_prefix(self) -> str:
        """The decoder's prefix in checkpoint names, as a regular expression."""
        return re.escape(self.decoder_prefix if self.checkpoint_prefix is None else self.checkpoint_prefix)

    @hookimpl
    def decoder_layer_cls(self) -> tuple[type[nn.Module], ...]:
        """See `FamilySpec.decoder_layer_cls`."""
        paths = (self.decoder_layer,) if isinstance(self.decoder_layer, str) else self.decoder_layer
        return tuple(import_dotted(path) for path in paths)

    @hookimpl
    def input_embedding_name(self) -> str:
        """See `FamilySpec.input_embedding_name`."""
        return f"{self.decoder_prefix}.{self.embedding}"

    @hookimpl
    def output_embedding_name(self) -> str:
        """See `FamilySpec.output_embedding_name`."""
        return self.head

    @hookimpl
    def final_norm_name(self) -> str:
        """See `FamilySpec.final_norm_name`."""
        return f"{self.decoder_prefix}.{self.final_norm}"

    @hookimpl
    def layer_block_name(self, index: int) -> str:
        """See `FamilySpec.layer_block_name`."""
        return f"{self.decoder_prefix}.{self.layers}.{index}"

    @hookimpl
    def language_model_config(self, config: Any) -> Any:
        """See `FamilySpec.language_model_config`."""
        return config if self.text_config is None else getattr(config, self.text_config)

    @hookimpl
    def convert_weight_name(self, name: str) -> str | None:
        """See `FamilySpec.convert_weight_name`."""
        return name

    @hookimpl
    def dequantize(self, names: Sequence[str]) -> Mapping[str, Sequence[str]] | None:
        """See `FamilySpec.dequantize`."""
        return None

    @hookimpl
    def init_rotary_embedding(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
        """See `FamilySpec.init_rotary_embedding`: transformers' own initialisation of every non-persistent buffer."""
        from anyblock.modeling.buffers import rebuild_buffers

        rebuild_buffers(model, device)
        return True

    @hookimpl
    def requires_trust_remote_code(self) -> bool:
        """See `FamilySpec.requires_trust_remote_code`."""
        return False

    @hookimpl
    def uses_autocast(self) -> bool:
        """See `FamilySpec.uses_autocast`."""
        return True

    @hookimpl
    def importance_hooks(self) -> Mapping[str, type[ImportanceHook]]:
        """See `FamilySpec.importance_hooks`."""
        return {}

    @hookimpl
    def export_formats(self) -> Mapping[str, type[ExportFormat]]:
        """See `FamilySpec.export_formats`."""
        return {}

    def outer_predicates(self) -> dict[str, re.Pattern[str]]:
        """Return the patterns of the groups outside the layers: `embeddings`, `lm_head` with the final norm, further ones.

        Old files have the rotary frequencies in every layer, where no pattern of a layer may take them.
        """
        prefix = self.weights_prefix
        head = re.escape(self.checkpoint_head or self.head)
        return {
            "embeddings": re.compile(rf"{prefix}\.{re.escape(self.embedding)}\..+"),
            "lm_head": re.compile(rf"(?:{prefix}\.{re.escape(self.final_norm)}|{head})\..+"),
            "rotary_buffers": re.compile(rf"{prefix}\.{re.escape(self.layers)}\.\d+\..+{ROTARY_BUFFER}"),
            **{group: re.compile(pattern) for group, pattern in self.extra_groups.items()},
        }


def import_dotted(path: str) -> Any:
    """Import `package.module.Name`.

    Raises:
        ImportError: the module cannot be imported, or has no such name.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"module {module} has no {name}") from error


def full(*names: str) -> dict[str, Capability]:
    """Return these capabilities as fully supported."""
    return {name: Capability(Support.FULL) for name in names}


def unsupported(*names: str) -> dict[str, Capability]:
    """Return these capabilities as absent from the architecture."""
    return {name: Capability(Support.UNSUPPORTED) for name in names}


def not_implemented(*names: str) -> dict[str, Capability]:
    """Return these capabilities as present in the architecture and not handled by the adapter."""
    return {name: Capability(Support.NOT_IMPLEMENTED) for name in names}
