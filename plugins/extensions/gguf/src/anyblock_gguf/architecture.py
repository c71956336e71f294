"""`Architecture`: how llama.cpp is given the models of one family."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import gguf
from anyblock.contract.cache_spec import head_width

from anyblock_gguf.rope import add_rope, rope_factors, rope_obstacles, rope_parameters

if TYPE_CHECKING:
    import torch
    from anyblock.contract.blocks import BlockConfig

_EXPERT: Final = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)\.weight")
_QKV: Final = ("attn_q", "attn_k", "attn_v")
_ATTENTION: Final = (*_QKV, "attn_output")


class Architecture:
    """One architecture of llama.cpp; a new object for each child.

    Class attributes:
        name: llama.cpp's name of it.
        permuted: it rotates neighbouring values of a head, where transformers rotates the two halves against each other.
        biases: the linear maps (llama.cpp's names) that may have a bias.
        activation: what the model's activation has to be.
        period: windowed layers come by turns: every `period`-th layer is full; 0 for models without a window.
        first_full: whether a turn begins with the full layer, not with windowed ones.
        factors: it reads a factor for each rotary frequency (Llama 3).
        partial: it reads which part of a head is rotated.
        varies: the attributes of the configuration that may differ from layer to layer.
        lacks_halves: a layer may lack its attention or its FFN.
        own_head: it reads a head of its own, also where the model's is tied to the embeddings.

    Args:
        configs: transformers' configuration of every layer that the child keeps, with that layer's sizes.
        places: the layers' indices in the child.
        blocks: their block configs.
    """

    name: ClassVar[str]
    permuted: ClassVar[bool] = False
    biases: ClassVar[Sequence[str]] = ()
    activation: ClassVar[str] = "silu"
    period: ClassVar[int] = 0
    factors: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    varies: ClassVar[Sequence[str]] = ()
    lacks_halves: ClassVar[bool] = False
    own_head: ClassVar[bool] = False

    def __init__(self, configs: Sequence[Any], places: Sequence[int], blocks: Sequence[BlockConfig]) -> None:
        self.configs, self.places, self.blocks = configs, places, blocks
        self.config = configs[0]
        self.kinds = [""] * len(places)
        arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        self.names = gguf.get_tensor_name_map(arch, len(places))

    def obstacles(self) -> list[str]:
        """Return what of the model llama.cpp does not compute; empty when it computes the same."""
        found = rope_obstacles(self.config, factors=self.factors, partial=self.partial)
        activation = getattr(self.config, "hidden_act", None) or self.config.hidden_activation
        if activation != self.activation:
            found.append(f"its activation is {activation}, not {self.activation}")
        return found + self.window_obstacles()

    def uneven(self, differences: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return where layers differ in what llama.cpp has one size for.

        Args:
            differences: for each layer that is kept, see `Child.layer_differences`.
        """
        found = []
        for place, layer in zip(self.places, differences, strict=True):
            if "skip" in layer and not self.lacks_halves:
                found.append(f"layer {place} lacks its {' and '.join(layer['skip'])}")
        for name in sorted({name for layer in differences for name in layer} - {"skip", *self.varies}):
            for kind in dict.fromkeys(self.kinds):
                own = [index for index, other in enumerate(self.kinds) if other == kind]
                values = {getattr(self.configs[index], name): self.places[index] for index in reversed(own)}
                if len(values) > 1:
                    listed = ", ".join(f"{value} in layer {place}" for value, place in sorted(values.items())[:3])
                    found.append(f"{name} is {listed}, and llama.cpp's {self.name} has one for all layers")
        return found

    def window_obstacles(self) -> list[str]:
        """Return which layers have a sliding window where llama.cpp gives them none, or the reverse."""
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None)
        if kinds is None:
            kinds = ["sliding_attention" if window else "full_attention"] * (max(self.places) + 1)
        windowed = [kinds[place] == "sliding_attention" for place in self.places]
        if not self.period:
            return [f"its attention has a sliding window of {window} tokens"] if any(windowed) else []
        wanted = [(index + 1) % self.period != 0 for index in range(len(self.places))]
        wrong = [place for place, mine, theirs in zip(self.places, windowed, wanted, strict=True) if mine != theirs]
        return [
            f"layer {place} {'has a' if kinds[place] == 'sliding_attention' else 'has no'} sliding window, "
            f"where llama.cpp has every {self.period}th layer without one and all others with one"
            for place in wrong[:1]
        ]

    def metadata(self, writer: Any) -> None:
        """Write the sizes and constants of the model."""
        config = self.config
        writer.add_block_count(len(self.places))
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_vocab_size(config.vocab_size)
        self.add_sizes(writer)
        writer.add_key_length(head_width(config))
        writer.add_value_length(head_width(config))
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        add_rope(writer, config)
        if self.period:
            writer.add_sliding_window(config.sliding_window)

    def add_sizes(self, writer: Any) -> None:
        """Write the width of the FFN and the numbers of heads."""
        writer.add_feed_forward_length(self.config.intermediate_size)
        writer.add_head_count(self.config.num_attention_heads)
        writer.add_head_count_kv(self.config.num_key_value_heads)

    def tensors(
        self, groups: Iterable[str], load: Callable[[str], Mapping[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the names and tensors of the file, in the child's dtype, one group of the child in memory at a time.

        Args:
            groups: those of the layers that are kept, and of what is outside of layers.
            load: returns a group's tensors by name; with the device `meta` nothing is read.

        Raises:
            KeyError: llama.cpp's architecture has no such tensor; the key is the child's name of it.
        """
        if self.factors and (factors := rope_factors(self.config)) is not None:
            yield "rope_freqs.weight", factors
        for group in groups:
            for name, tensor in _stacked(load(group)):
                for changed, value in self.changed(name, tensor):
                    renamed = self.renamed(changed, name)
                    yield renamed, value
                    if self.own_head and self.config.tie_word_embeddings and renamed == "token_embd.weight":
                        yield "output.weight", value

    def changed(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what one of the child's tensors becomes, under names that gguf's map knows."""
        if self.permuted and (found := re.search(r"\.layers\.(\d+)\.self_attn\.([qk])_proj\.", name)):
            config = self.configs[self.places.index(int(found[1]))]
            heads = config.num_attention_heads if found[2] == "q" else config.num_key_value_heads
            tensor = interleaved(tensor, heads)
        yield name, tensor

    def renamed(self, name: str, of: str) -> str:
        """Return llama.cpp's name of a tensor.

        Raises:
            KeyError: it has none; the key is `of`.
        """
        if found := re.search(r"\.layers\.(\d+)\.", name):
            place = self.places.index(int(found[1]))
            name = f"{name[: found.start()]}.layers.{place}.{name[found.end() :]}"
        mapped = self.names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise KeyError(of)
        stem, _, suffix = mapped.rpartition(".")
        if suffix == "bias" and stem.rpartition(".")[2] not in self.biases:
            raise KeyError(of)
        return str(mapped)


def interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder a projection's rows from transformers' rotary halves to llama.cpp's neighbouring pairs."""
    rows = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, rows, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _stacked(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a group's tensors, the matrices of its single experts stacked in their order, [experts, out, in]."""
    import torch

    experts: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if found := _EXPERT.fullmatch(name):
            experts.setdefault(f"{found[1]}.{found[3]}.weight", {})[int(found[2])] = tensor
        else:
            yield name, tensor
    for name, parts in experts.items():
        yield name, torch.stack([parts[index] for index in sorted(parts)])


def add_experts(writer: Any, config: Any, width: int) -> None:
    """Write the number of experts, how many a token uses, and their width."""
    writer.add_expert_count(config.num_local_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(width)


class Llama(Architecture):
    """Llama and Mistral models whose layers are alike."""

    name = "llama"
    permuted = True
    factors = True
    biases: ClassVar[Sequence[str]] = (*_ATTENTION, "ffn_gate", "ffn_up", "ffn_down")


class Mixtral(Llama):
    """llama.cpp's `llama` has experts as well."""

    biases: ClassVar[Sequence[str]] = ()

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        writer.add_expert_count(self.config.num_local_experts)
        writer.add_expert_used_count(self.config.num_experts_per_tok)


class Granite(Llama):
    """Granite 3: multipliers after the embedding, the halves and the head, and in place of attention's own scale."""

    name = "granite"

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        writer.add_embedding_scale(self.config.embedding_multiplier)
        writer.add_attention_scale(self.config.attention_multiplier)
        writer.add_residual_scale(self.config.residual_multiplier)
        writer.add_logit_scale(self.config.logits_scaling)


class SmolLM3(Architecture):
    """SmolLM3: every fourth layer rotates nothing."""

    name = "smollm3"
    permuted = True

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        rotated = [bool(self.config.no_rope_layers[place]) for place in self.places]
        wrong = [place for index, place in enumerate(self.places) if rotated[index] != bool((index + 1) % 4)]
        return super().obstacles() + [
            f"layer {place} {'rotates' if self.config.no_rope_layers[place] else 'does not rotate'} its queries, "
            "where in llama.cpp every fourth layer does not and all others do"
            for place in wrong[:1]
        ]


class Qwen2(Architecture):
    """Qwen2 and 2.5."""

    name = "qwen2"
    biases: ClassVar[Sequence[str]] = _QKV


class Qwen3(Architecture):
    """Qwen3's dense models."""

    name = "qwen3"


class Qwen3Moe(Architecture):
    """Qwen3's models with experts in every layer."""

    name = "qwen3moe"

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        found = super().obstacles()
        if not self.config.norm_topk_prob:
            found.append("its experts' weights do not sum to 1 (norm_topk_prob)")
        return found

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        add_experts(writer, self.config, self.config.moe_intermediate_size)


class Olmoe(Architecture):
    """OLMoE: norms over all queries and all keys."""

    name = "olmoe"
    own_head = True

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`."""
        found = super().obstacles()
        if self.config.norm_topk_prob:
            found.append("its experts' weights sum to 1 (norm_topk_prob)")
        if self.config.clip_qkv:
            found.append(f"its queries, keys and values are clipped to {self.config.clip_qkv}")
        return found

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        add_experts(writer, self.config, self.config.intermediate_size)


class Olmo3(Architecture):
    """OLMo 2 and 3: norms after the halves, and over all queries and all keys; windowed layers in OLMo 3."""

    name = "olmo2"
    own_head = True
    period = 4


class Gemma2(Architecture):
    """Gemma 2: norms that multiply by 1 + w, soft-capped logits, a window in every other layer."""

    name = "gemma2"
    period = 2
    activation = "gelu_pytorch_tanh"

    def obstacles(self) -> list[str]:
        """See `Architecture.obstacles`: llama.cpp takes the scale of attention from the width of a head."""
        found = super().obstacles()
        scale = self.config.query_pre_attn_scalar
        if scale != head_width(self.config):
            found.append(
                f"its attention is scaled by {scale}^-0.5, not by a head's width, {head_width(self.config)}^-0.5"
            )
        return found

    def changed(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Architecture.changed`."""
        yield name, tensor.float() + 1 if name.endswith("norm.weight") else tensor

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        if self.config.attn_logit_softcapping:
            writer.add_attn_logit_softcapping(self.config.attn_logit_softcapping)
        if self.config.final_logit_softcapping:
            writer.add_final_logit_softcapping(self.config.final_logit_softcapping)


class Gemma3(Gemma2):
    """The text models of Gemma 3: five windowed layers, then a full one, with rotary frequencies of their own."""

    name = "gemma3"
    period = 6

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        writer.add_rope_freq_base_swa(rope_parameters(self.config, "sliding_attention")["rope_theta"])


class Phi3(Architecture):
    """Phi-3 and Phi-4: queries, keys and values in one matrix, gate and up in another."""

    name = "phi3"
    partial = True

    def window_obstacles(self) -> list[str]:
        """See `Architecture.window_obstacles`: llama.cpp has switched Phi's window off."""
        window = self.config.sliding_window
        if window is None or window >= self.config.max_position_embeddings:
            return []
        return [f"its attention has a sliding window of {window} tokens"]


class GptOss(Architecture):
    """gpt-oss: experts with biases, sinks, a window in every other layer."""

    name = "gpt-oss"
    own_head = True
    period = 2
    biases: ClassVar[Sequence[str]] = (*_ATTENTION, "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")

    def metadata(self, writer: Any) -> None:
        """See `Architecture.metadata`."""
        super().metadata(writer)
        add_experts(writer, self.config, self.config.intermediate_size)

    def changed(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Architecture.changed`: matrices of experts are [experts, in, out], gate and up by turns."""
        stem, _, last = name.rpartition(".")
        if last == "sinks":
            yield f"{name}.weight", tensor
        elif not stem.endswith("experts"):
            yield name, tensor
        else:
            suffix = "bias" if last.endswith("_bias") else "weight"
            tensor = tensor if suffix == "bias" else tensor.transpose(1, 2)
            last = last.removesuffix("_bias")
            parts = {last: tensor} if last == "down_proj" else {"gate_proj": tensor[:, ::2], "up_proj": tensor[:, 1::2]}
            for part, value in parts.items():
                yield f"{stem}.{part}.{suffix}", value
