"""The base for decoders whose layers are described as data, one description for each kind of half."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.checkpoint.config_view import layer_view
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MoEConfig
from anyblock.contract.capabilities import CAPABILITIES, Capability, Support
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors.base import ROTARY_BUFFER, DescriptorBase, full, unsupported
from anyblock.descriptors.meta import ConfigKey, layer_caches, layer_parameters
from anyblock.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import nn

    from anyblock.contract.cache_spec import CacheSpec
    from anyblock.contract.pruning_mixin import PruningMixIn


@dataclass(frozen=True, kw_only=True)
class HalfLayout:
    """One kind of attention or ffn.

    Attributes:
        names: checkpoint names, below the layer, of the modules and parameters that belong to it.
        attentions: `{module: values it returns}` of softmax attentions, whose no-op keeps the cache going; -1 is a list of one.
        zeros: `{module: values it returns}` of further modules that a no-op replaces by zeros.
        norms: the norms that leave with it.
        residuals: `{module: argument}` of modules that add the residual themselves and get it as that argument; a number
            is the place of a positional one.
        sizes: `{field of the block config: attribute of the config}`; `hidden_size * 4` is a multiple of an attribute,
            `expert_width * num_shared_experts` one of another, `ffn_dim / 2` a part of one, and
            `n_inner or hidden_size * 4` what holds where an attribute is None.
        fixed: the fields whose size a layer's constructor does not take from its config.
        mark: a parameter that only layers of this kind have; None for layers that have the mark of no other kind.
    """

    names: tuple[str, ...]
    attentions: Mapping[str, int] = field(default_factory=dict)
    zeros: Mapping[str, int] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    residuals: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    mark: str | None = None


class LayoutDescriptor(DescriptorBase):
    """Hooks for a decoder whose halves are described by `HalfLayout`s.

    Class attributes beyond those of `DescriptorBase`:
        attention_kinds, ffn_kinds: the kinds of halves by name; a layer has one of each, or lacks a half.
        attention_by, ffn_by: the config's list with the kind of every layer's half; None where there is one kind, or where
            the kind has to be looked up in the model that transformers builds (see `HalfLayout.mark`).
        other: checkpoint names below a layer of what belongs to neither half.
        layer_count: the config's number of layers; an encoder's may be what `num_hidden_layers` stands for.
        embedding_path, layers_path, final_norm_path, head: module paths in the whole model.
        checkpoint_layers: the path of the layers in checkpoint names.
        embedding_names, head_names: checkpoint names of modules and parameters in front of and behind the layers.
        measured_cache: whether what a layer keeps between decoding steps is read off a model on the meta device; otherwise it
            is `attention_cache`, keys and values of every key-value head.
        lacking: `{capability: reason}` of what the architecture has and the adapter does not offer.
        absent: `{capability: reason}` of what the architecture does not have.
    """

    attention_kinds: ClassVar[Mapping[str, HalfLayout]] = {}
    ffn_kinds: ClassVar[Mapping[str, HalfLayout]] = {}
    attention_by: ClassVar[str | None] = None
    ffn_by: ClassVar[str | None] = None
    other: ClassVar[tuple[str, ...]] = ()
    layer_count: ClassVar[str] = "num_hidden_layers"
    embedding_path: ClassVar[str] = "model.embed_tokens"
    layers_path: ClassVar[str] = "model.layers"
    final_norm_path: ClassVar[str] = "model.norm"
    checkpoint_layers: ClassVar[str] = "model.layers"
    embedding_names: ClassVar[tuple[str, ...]] = ("model.embed_tokens",)
    head_names: ClassVar[tuple[str, ...]] = ("model.norm", "lm_head")
    measured_cache: ClassVar[bool] = False
    lacking: ClassVar[Mapping[str, str]] = {}
    absent: ClassVar[Mapping[str, str]] = {}

    # -- which layer is of which kind -------------------------------------------------------------------------------

    def kinds_of(self, config: Any, half: str) -> list[HalfLayout | None]:
        """Return the layout of one half of every layer; None where a layer lacks it.

        Raises:
            UnsupportedModelError: a layer is of a kind that this adapter does not know.
        """
        kinds: Mapping[str, HalfLayout] = getattr(self, f"{half}_kinds")
        by, text = getattr(self, f"{half}_by"), self.language_model_config(config)
        layers = int(getattr(text, self.layer_count))
        if by is not None and getattr(text, by, None) is not None:
            names = [str(name) for name in getattr(text, by)]
            unknown = sorted(set(names) - set(self.attention_kinds) - set(self.ffn_kinds))
            if unknown:
                raise UnsupportedModelError(
                    f"{by} has {', '.join(unknown)}",
                    expected=", ".join(kinds),
                    hint="make the adapter anew from this model",
                )
            return [kinds.get(name) for name in names]
        if all(kind.mark is None for kind in kinds.values()):
            return [next(iter(kinds.values()), None)] * layers
        names_by_layer = layer_parameters(ConfigKey(config), self.layers_path)
        rest = next((kind for kind in kinds.values() if kind.mark is None), None)
        return [next((kind for kind in kinds.values() if kind.mark in names), rest) for names in names_by_layer]

    # -- hooks ------------------------------------------------------------------------------------------------------

    @property
    def checkpoint_layer(self) -> str:
        """See `DescriptorBase.checkpoint_layer`."""
        return f"{self.checkpoint_layers}.{{layer_idx}}"

    @hookimpl
    def input_embedding_name(self) -> str:
        """See `FamilySpec.input_embedding_name`."""
        return self.embedding_path

    @hookimpl
    def final_norm_name(self) -> str:
        """See `FamilySpec.final_norm_name`."""
        return self.final_norm_path

    @hookimpl
    def layer_block_name(self, index: int) -> str:
        """See `FamilySpec.layer_block_name`."""
        return f"{self.layers_path}.{index}"

    def outer_predicates(self) -> dict[str, re.Pattern[str]]:
        """See `DescriptorBase.outer_predicates`."""
        return {
            "embeddings": re.compile(_below(self.embedding_names)),
            "lm_head": re.compile(_below(self.head_names)),
            "rotary_buffers": re.compile(rf"{re.escape(self.checkpoint_layers)}\.\d+\..+{ROTARY_BUFFER}"),
            **{group: re.compile(pattern) for group, pattern in self.extra_groups.items()},
        }

    @hookimpl
    def layer_name_predicates(self, num_layers: int, config: Any) -> dict[str, re.Pattern[str]]:
        """See `FamilySpec.layer_name_predicates`."""
        groups = self.outer_predicates()
        halves = {half: self.kinds_of(config, half) for half in ("attention", "ffn")}
        for index in range(num_layers):
            layer = rf"{re.escape(self.checkpoint_layers)}\.{index}\.(?!.+{ROTARY_BUFFER}$)"
            for half, kinds in halves.items():
                if (kind := kinds[index]) is not None:
                    groups[f"block_{index}_{half}"] = re.compile(rf"{layer}{_below(kind.names)}")
            if self.other:
                groups[f"block_{index}_other"] = re.compile(rf"{layer}{_below(self.other)}")
        return groups

    @hookimpl
    def create_block_configs(self, config: Any) -> list[BlockConfig]:
        """See `FamilySpec.create_block_configs`."""
        text = self.language_model_config(config)
        attention, ffn = self.kinds_of(config, "attention"), self.kinds_of(config, "ffn")
        return [
            BlockConfig(attention=_attention(layer, own, index), ffn=_ffn(layer, other, index))
            for index, (own, other) in enumerate(zip(attention, ffn, strict=True))
            for layer in (layer_view(text, index),)
        ]

    @hookimpl
    def block_config_to_layer_overrides(self, block_config: BlockConfig) -> Mapping[str, Any]:
        """See `FamilySpec.block_config_to_layer_overrides`."""
        heads = block_config.attention.num_attention_heads
        found: dict[str, Any] = {"num_attention_heads": heads} if heads else {}
        for kinds, given in ((self.attention_kinds, block_config.attention), (self.ffn_kinds, block_config.ffn)):
            moe = getattr(given, "moe", None)
            for kind in kinds.values():
                sparse = "num_local_experts" in kind.sizes
                if given.no_op or (kinds is self.ffn_kinds and sparse != (moe is not None)):
                    continue
                for name, attribute in kind.sizes.items():
                    width, _, factor = attribute.partition(" * ")
                    if moe is not None and width == kind.sizes["expert_intermediate_dim"] and factor.isidentifier():
                        found[factor] = (moe.shared_expert_intermediate_dim or 0) // moe.expert_intermediate_dim
                        continue
                    value = getattr(moe or given, name, None)
                    if value is not None and name not in kind.fixed and not attribute.startswith("hidden_size * "):
                        own, _, parts = attribute.partition(" or ")[0].partition(" / ")
                        found[own] = value * int(parts or 1)
        return found

    @hookimpl
    def attn_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.attn_no_op_post_init`."""
        return self._remove(decoder_layer, self.attention_kinds)

    @hookimpl
    def mlp_no_op_post_init(self, decoder_layer: nn.Module) -> bool:
        """See `FamilySpec.mlp_no_op_post_init`."""
        return self._remove(decoder_layer, self.ffn_kinds)

    def _remove(self, layer: nn.Module, kinds: Mapping[str, HalfLayout]) -> bool:
        from anyblock.modeling.no_op import NoOpAttention, NoOpFFN, NoOpNorm, NoOpResidual, NoOpTypedNorm

        there = set(layer.state_dict())
        marked = [kind for kind in kinds.values() if kind.mark in there]
        for kind in marked or [kind for kind in kinds.values() if kind.mark is None]:
            for name in (*kind.attentions, *kind.zeros, *kind.residuals, *kind.norms):
                parent, _, leaf = name.rpartition(".")
                try:
                    owner = layer.get_submodule(parent)
                    old = getattr(owner, leaf)
                except AttributeError:
                    continue
                if old is None or isinstance(old, NoOpAttention | NoOpFFN | NoOpNorm | NoOpResidual):
                    continue
                new: nn.Module = NoOpTypedNorm(old) if hasattr(old, "weight") else NoOpNorm()
                if name in kind.residuals:
                    new = NoOpResidual.replacing(
                        old, argument=kind.residuals[name], returns=kind.attentions.get(name, 1)
                    )
                elif name in kind.attentions:
                    new = NoOpAttention.replacing(old, returns=kind.attentions[name])
                elif name in kind.zeros:
                    new = NoOpFFN(returns=kind.zeros[name], width=_other_width(old))
                setattr(owner, leaf, new)
        return True

    @hookimpl
    def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
        """See `FamilySpec.cache_spec`."""
        from anyblock.contract.cache_spec import CacheSpec
        from anyblock.descriptors.cache import attention_cache

        if not self.measured_cache:
            return attention_cache(self.language_model_config(config), block_config, layer_index)
        if block_config.attention.no_op:
            return CacheSpec()
        found = layer_caches(ConfigKey(config), self, not block_config.ffn.no_op)[layer_index]
        heads = block_config.attention.num_key_value_heads
        own = self.create_block_configs(config)[layer_index].attention.num_key_value_heads
        return replace(found, per_token=found.per_token * heads // own) if heads and own else found

    def layout_mixins(self) -> dict[str, PruningMixIn]:
        """Return a mixin for every kind of pruning that the adapter offers."""
        return {}

    @hookimpl
    def pruning_mixins(self) -> Mapping[str, PruningMixIn]:
        """See `FamilySpec.pruning_mixins`."""
        return {
            kind: mixin for kind, mixin in self.layout_mixins().items() if kind not in {*self.lacking, *self.absent}
        }

    @hookimpl
    def capabilities(self) -> Mapping[str, Capability]:
        """See `FamilySpec.capabilities`."""
        offered = ("convert", "build", "attention_no_op", "ffn_no_op", "search", *self.layout_mixins())
        return {
            **unsupported(*CAPABILITIES),
            **full(*offered),
            **{name: Capability(Support.UNSUPPORTED, reason) for name, reason in self.absent.items()},
            **{name: Capability(Support.NOT_IMPLEMENTED, reason) for name, reason in self.lacking.items()},
        }


def _below(names: tuple[str, ...]) -> str:
    return rf"(?:{'|'.join(map(re.escape, names))})(?:\..+)?" if names else r"(?!)"


def _other_width(module: nn.Module) -> int | None:
    """Return the width of what a linear map to another width returns; None of any other module."""
    own, given = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return own if isinstance(own, int) and own != given else None


def _required(text: Any, sizes: Mapping[str, str], name: str, index: int) -> int:
    found = _size(text, sizes, name, index)
    if found is None:
        raise UnsupportedModelError(
            f"layer {index} has no {name}", expected=sizes.get(name, f"an attribute for {name}")
        )
    return found


def _size(text: Any, sizes: Mapping[str, str], name: str, index: int) -> int | None:
    for choice in sizes.get(name, "").split(" or "):
        attribute, _, factor = choice.partition(" * ")
        attribute, _, parts = attribute.partition(" / ")
        value = getattr(text, attribute) if attribute else None
        value = value[index] if isinstance(value, list | tuple) else value
        if value is not None:
            times = getattr(text, factor) if factor.isidentifier() else factor or 1
            return int(value) * int(times) // int(parts or 1)
    return None


def _attention(text: Any, kind: HalfLayout | None, index: int) -> AttentionConfig:
    if kind is None:
        return AttentionConfig(no_op=True)
    return AttentionConfig(num_key_value_heads=_size(text, kind.sizes, "num_key_value_heads", index))


def _ffn(text: Any, kind: HalfLayout | None, index: int) -> FFNConfig:
    if kind is None:
        return FFNConfig(no_op=True)
    experts = _size(text, kind.sizes, "num_local_experts", index)
    if experts is None:
        return FFNConfig(intermediate_size=_required(text, kind.sizes, "intermediate_size", index))
    return FFNConfig(
        moe=MoEConfig(
            num_local_experts=experts,
            num_experts_per_tok=_required(text, kind.sizes, "num_experts_per_tok", index),
            expert_intermediate_dim=_required(text, kind.sizes, "expert_intermediate_dim", index),
            shared_expert_intermediate_dim=_size(text, kind.sizes, "shared_expert_intermediate_dim", index),
        )
    )
