"""The hooks of a family, answered once from where its modules lie and what the halves of its layers consist of."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from anyblock.checkpoint.config_view import layer_view
from anyblock.contract.blocks import HALVES, AttentionConfig, BlockConfig, FFNConfig, group_name
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.contract.hookspecs import hookimpl
from anyblock.contract.trust import CODE
from anyblock.descriptors.attributes import check_attributes
from anyblock.descriptors.fp8 import ScaledStorage
from anyblock.descriptors.layout import HalfLayout
from anyblock.descriptors.meta import ConfigKey, layer_caches, layer_parameters
from anyblock.errors import UnsupportedModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.pruning_mixin import PruningMixIn
    from anyblock.contract.residual_pruning import ResidualPruning

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
_ROTARY_BUFFER: Final = r"\.rotary_emb\.inv_freq"
"""The end of a tensor's name that models no longer have, as a regular expression."""


class DescriptorBase(ScaledStorage):
    """Every hook that a family needs but `conformance_config`; what the halves consist of is for a subclass to say.

    Class attributes that a family sets or keeps; any other must begin with an underscore:
        decoder_layer: dotted path of the decoder layer class, or several, imported only when a model is built.
        decoder_prefix: module path of the decoder; `""` where its parts lie in the model itself.
        embedding, layers, final_norm: paths below the prefix; a `final_norm` of `""` means that there is none.
        head: module path of the output head.
        checkpoint_prefix: the decoder's path in *checkpoint* names where it differs from `decoder_prefix`.
        checkpoint_embeddings: checkpoint names of the modules and parameters in front of the layers; None for `embedding`.
        checkpoint_head: checkpoint names of those after the layers; None for `final_norm` and `head`.
        other: checkpoint names, below a layer, of what belongs to neither half, such as a norm that feeds both.
        text_config: the attribute of a multimodal model's config that holds the language model's.
        extra_groups: `{group: regular expression}` of tensors that are kept as they are, such as a vision tower's.
        layer_count: the config's number of layers; an encoder's may be what `num_hidden_layers` stands for.
        layers_beyond: whether layers after the last one predict further tokens; transformers leaves them out.
        attention_by, ffn_by: the config's list with the kind of every layer's half; None where there is one kind, or where
            the kind has to be looked up in the model that transformers builds (see `HalfLayout.mark`).
        layer_type: the attribute of a built layer with the name of its kind; None where marks tell kinds apart.
        measured_cache: whether what a layer keeps between decoding steps is read off a model on the meta device; otherwise it
            is `attention_cache`, keys and values of every key-value head.
        not_implemented: capabilities that the architecture has and the adapter does not offer, perhaps `{name: reason}`.
        unsupported: capabilities that the architecture does not have, perhaps `{name: reason}`.
    """

    decoder_layer: ClassVar[str | tuple[str, ...]]
    decoder_prefix: ClassVar[str] = "model"
    embedding: ClassVar[str] = "embed_tokens"
    layers: ClassVar[str] = "layers"
    final_norm: ClassVar[str] = "norm"
    head: ClassVar[str] = "lm_head"
    checkpoint_prefix: ClassVar[str | None] = None
    checkpoint_embeddings: ClassVar[tuple[str, ...] | None] = None
    checkpoint_head: ClassVar[tuple[str, ...] | None] = None
    other: ClassVar[tuple[str, ...]] = ()
    text_config: ClassVar[str | None] = None
    extra_groups: ClassVar[Mapping[str, str]] = {}
    layer_count: ClassVar[str] = "num_hidden_layers"
    layers_beyond: ClassVar[bool] = False
    attention_by: ClassVar[str | None] = None
    ffn_by: ClassVar[str | None] = None
    layer_type: ClassVar[str | None] = None
    measured_cache: ClassVar[bool] = False
    not_implemented: ClassVar[tuple[str, ...] | Mapping[str, str]] = ()
    unsupported: ClassVar[tuple[str, ...] | Mapping[str, str]] = ()

    _declares: ClassVar[bool] = True

    def __init_subclass__(cls, *, declares: bool = False, **options: Any) -> None:
        """Check a class's attributes; one that is a base itself says `declares=True` and annotates those that it adds."""
        super().__init_subclass__(**options)
        cls._declares = declares
        check_attributes(cls, [base for base in cls.__mro__ if vars(base).get("_declares")])

    # -- what a layer consists of -----------------------------------------------------------------------------------

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """Return the kinds of `attention` or `ffn` by name; a layer has one of them, or lacks the half."""
        raise NotImplementedError

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """Return the layout of one half of every layer; None where a layer lacks it.

        Raises:
            UnsupportedModelError: a layer is of a kind that this adapter does not know.
        """
        kinds, by = self.half_kinds(half), getattr(self, f"{half}_by")
        text = self.language_model_config(config)
        if by is not None and getattr(text, by, None) is not None:
            names = [str(name) for name in getattr(text, by)]
            unknown = set(names).difference(*(self.half_kinds(each) for each in HALVES))
            if unknown:
                raise UnsupportedModelError(
                    f"{by} has {', '.join(sorted(unknown))}",
                    expected=", ".join(kinds),
                    hint="add these kinds to the adapter, or write it anew from this model",
                )
            return [kinds.get(name) for name in names]
        rest = next((kind for kind in kinds.values() if kind.mark is None), None)
        if all(kind.mark is None for kind in kinds.values()):
            return [rest] * int(getattr(text, self.layer_count))
        parameters = layer_parameters(ConfigKey(config), self.layers_path)
        return [next((kind for kind in kinds.values() if kind.mark in names), rest) for names in parameters]

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """Return a mixin for every kind of pruning that the layout allows, offered or not."""
        return {}

    # -- structure of a checkpoint ----------------------------------------------------------------------------------

    def _stored(self, name: str) -> str:
        return _joined(self.decoder_prefix if self.checkpoint_prefix is None else self.checkpoint_prefix, name)

    @property
    def checkpoint_layer(self) -> str:
        """The prefix of one layer's tensors in a checkpoint, with `{layer_idx}`."""
        return f"{self._stored(self.layers)}.{{layer_idx}}"

    @property
    def layers_path(self) -> str:
        """The module path of the list of layers."""
        return _joined(self.decoder_prefix, self.layers)

    def outer_predicates(self) -> dict[str, re.Pattern[str]]:
        """Return the patterns of the groups outside the layers: `embeddings`, `lm_head` with the final norm, further ones.

        Old files have the rotary frequencies in every layer, where no pattern of a layer may take them.
        """
        norm = (self._stored(self.final_norm),) if self.final_norm else ()
        embeddings, head = self.checkpoint_embeddings, self.checkpoint_head
        return {
            "embeddings": re.compile(_below((self._stored(self.embedding),) if embeddings is None else embeddings)),
            "lm_head": re.compile(_below((*norm, self.head) if head is None else head)),
            "rotary_buffers": re.compile(rf"{re.escape(self._stored(self.layers))}\.\d+\..+{_ROTARY_BUFFER}"),
            **{group: re.compile(pattern) for group, pattern in self.extra_groups.items()},
        }

    @hookimpl
    def layer_name_predicates(self, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:
        """See `FamilySpec.layer_name_predicates`."""
        groups, layers = self.outer_predicates(), re.escape(self._stored(self.layers))
        if self.layers_beyond:
            inside = "|".join(map(str, range(num_layers)))
            groups["multi_token_prediction"] = re.compile(rf"{layers}\.(?!(?:{inside})\.)\d+\..+")
        halves = {half: self._names_of(config, half, num_layers) for half in HALVES}
        for index in range(num_layers):
            layer = rf"{layers}\.{index}\.(?!.+{_ROTARY_BUFFER}$)"
            for part, names in (*halves.items(), ("other", [self.other or None] * num_layers)):
                if (own := names[index]) is not None:
                    groups[group_name(index, part)] = re.compile(layer + _below(own))
        return groups

    def _names_of(self, config: Any, half: str, num_layers: int) -> list[tuple[str, ...] | None]:
        kinds = self.half_kinds(half).values()
        names = {kind.names for kind in kinds}
        if len(names) == 1 and getattr(self, f"{half}_by") is None and all(kind.mark is None for kind in kinds):
            return [*names] * num_layers  # whatever the configuration says
        return [None if kind is None else kind.names for kind in self.kinds_of(config, half)]

    @hookimpl
    def create_block_configs(self, config: Any) -> list[BlockConfig]:
        """See `FamilySpec.create_block_configs`."""
        text, attention, ffn = self.language_model_config(config), *(self.kinds_of(config, half) for half in HALVES)
        return [
            BlockConfig(
                attention=own.config(AttentionConfig, layer, index) if own else AttentionConfig(no_op=True),
                ffn=other.config(FFNConfig, layer, index) if other else FFNConfig(no_op=True),
            )
            for index, (own, other) in enumerate(zip(attention, ffn, strict=True))
            for layer in (layer_view(text, index),)
        ]

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        heads = block_config.attention.num_attention_heads
        found: dict[str, Any] = {"num_attention_heads": heads} if heads else {}
        for half in HALVES:
            for kind in self.half_kinds(half).values():
                found.update(kind.overrides(block_config.half(half)))
        return found

    @hookimpl
    def language_model_config(self, config: Any) -> Any:
        """See `FamilySpec.language_model_config`."""
        return config if self.text_config is None else getattr(config, self.text_config)

    # -- structure of a model ---------------------------------------------------------------------------------------

    @hookimpl
    def decoder_layer_cls(self) -> tuple[type[nn.Module], ...]:
        """See `FamilySpec.decoder_layer_cls`."""
        paths = (self.decoder_layer,) if isinstance(self.decoder_layer, str) else self.decoder_layer
        return tuple(import_dotted(path) for path in paths)

    @hookimpl
    def input_embedding_name(self) -> str:
        """See `FamilySpec.input_embedding_name`."""
        return _joined(self.decoder_prefix, self.embedding)

    @hookimpl
    def output_embedding_name(self) -> str:
        """See `FamilySpec.output_embedding_name`."""
        return self.head

    @hookimpl
    def final_norm_name(self) -> str:
        """See `FamilySpec.final_norm_name`."""
        return _joined(self.decoder_prefix, self.final_norm) if self.final_norm else ""

    @hookimpl
    def layer_block_name(self, index: int) -> str:
        """See `FamilySpec.layer_block_name`."""
        return f"{self.layers_path}.{index}"

    @hookimpl
    def init_rotary_embedding(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
        """See `FamilySpec.init_rotary_embedding`: transformers' own initialisation of every non-persistent buffer."""
        from anyblock.modeling.buffers import rebuild_buffers

        rebuild_buffers(model, device)
        return True

    @hookimpl
    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.attn_no_op_post_init`."""
        return self._remove(decoder_layer, "attention")

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.mlp_no_op_post_init`."""
        return self._remove(decoder_layer, "ffn")

    def _remove(self, layer: nn.Module, half: str) -> bool:
        for kind in self._kinds_in(layer, half):
            kind.remove(layer)
        return True

    def _kinds_in(self, layer: nn.Module, half: str) -> Iterable[HalfLayout]:
        """Return the kinds that this half of a built layer may be of; none where the layer lacks it."""
        kinds = self.half_kinds(half)
        if self.layer_type is not None:
            name = getattr(layer, self.layer_type)
            return [kinds[name]] if name in kinds else []
        parameters = set(layer.state_dict())
        marked = [kind for kind in kinds.values() if kind.mark in parameters]
        return marked or [kind for kind in kinds.values() if kind.mark is None]

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.contract.cache_spec import CacheSpec
        from anyblock.descriptors.cache import attention_cache

        if not self.measured_cache:
            return attention_cache(self.language_model_config(config), block_config, layer_index)
        if block_config.attention.removed:
            return CacheSpec()
        found = layer_caches(ConfigKey(config), self, not block_config.ffn.removed)[layer_index]
        heads = block_config.attention.num_key_value_heads
        own = self.create_block_configs(config)[layer_index].attention.num_key_value_heads
        return replace(found, per_token=found.per_token * heads // own) if heads and own else found

    # -- pruning, export, capabilities ------------------------------------------------------------------------------

    @hookimpl
    def pruning_mixins(self) -> Mapping[str, PruningMixIn]:
        """See `FamilySpec.pruning_mixins`."""
        return {kind: mixin for kind, mixin in self.layout_mixins().items() if self.offers(kind)}

    @hookimpl
    def residual_stream(self) -> ResidualPruning | None:
        """See `FamilySpec.residual_stream`."""
        return None

    def offers(self, capability: str) -> bool:
        """Return whether a capability is neither `not_implemented` nor `unsupported`."""
        return capability not in self.not_implemented and capability not in self.unsupported

    @hookimpl
    def capabilities(self) -> Mapping[str, Capability]:
        """See `FamilySpec.capabilities`."""
        offered = ["convert", "build", "attention_no_op", "ffn_no_op", "search", *self.layout_mixins()]
        offered += ["hidden_size"] if self.residual_stream() is not None else []
        return {
            **_stated(Support.UNSUPPORTED, tuple(CAPABILITIES)),
            **_stated(Support.FULL, offered),
            **_stated(Support.UNSUPPORTED, self.unsupported),
            **_stated(Support.NOT_IMPLEMENTED, self.not_implemented),
        }


class LayoutDescriptor(DescriptorBase, declares=True):
    """Hooks for a decoder whose halves are said as data.

    Class attributes beyond those of `DescriptorBase`:
        attention_kinds, ffn_kinds: the kinds of halves by name; a layer has one of each, or lacks a half.
    """

    attention_kinds: ClassVar[Mapping[str, HalfLayout]] = {}
    ffn_kinds: ClassVar[Mapping[str, HalfLayout]] = {}

    def half_kinds(self, half: str) -> Mapping[str, HalfLayout]:
        """See `DescriptorBase.half_kinds`."""
        return self.attention_kinds if half == "attention" else self.ffn_kinds


def import_dotted(path: str) -> Any:
    """Import `package.module.Name`.

    Raises:
        ImportError: the module cannot be imported, or has no such name.
        UsageError: it is of code that comes with a checkpoint, and none was opened.
    """
    module, _, name = path.rpartition(".")
    if path.startswith(f"{CODE}.") and module not in sys.modules:
        raise UsageError(
            f"{name} comes with a checkpoint", hint="name one, not the model type, and --trust-remote-code"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"module {module} has no {name}") from error


def _stated(support: Support, names: Iterable[str] | Mapping[str, str]) -> dict[str, Capability]:
    reasons = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    return {name: Capability(support, reason) for name, reason in reasons.items()}


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _below(names: tuple[str, ...]) -> str:
    return rf"(?:{'|'.join(map(re.escape, names))})(?:\..+)?" if names else r"(?!)"
