"""`BlockConfig`: the architecture of one block (one decoder layer).

The field names and the JSON form are those of NVIDIA ModelOpt's checkpoints, so either system reads
what the other wrote. `num_attention_heads` is our addition: it is written only when it is set, as `replace_with_linear` is.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self, TypeVar

from anyblock.errors import ConfigError, nearest

# Fields that ModelOpt writes and that mean nothing beyond their neutral value here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "sparsify": (None,),
    "weights_precision": ("bf16", "fp16", "fp32", "bfloat16", "float16", "float32", None),
    "llama4": (None,),
    "parallel_blocks": (None,),
}
_ALONE = ("no_op", "replace_with_linear")  # a half of which one of these is true has no sizes
_T = TypeVar("_T")

Half = Literal["attention", "ffn"]
HALVES: Final[tuple[Half, ...]] = ("attention", "ffn")
_GROUP: Final = re.compile(r"block_(\d+)_.+")


def group_name(layer: int, part: str) -> str:
    """Return the name of the group that holds a layer's tensors of one half, or of what belongs to neither (`other`)."""
    return f"block_{layer}_{part}"


def layer_of(group: str) -> int | None:
    """Return the layer to which a group's tensors belong; None for what is outside the layers."""
    match = _GROUP.fullmatch(group)
    return int(match[1]) if match else None


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """The sizes of a Mamba mixer: state size, heads, head width, and groups that share B and C."""

    state_dim: int
    num_heads: int
    head_dim: int
    num_groups: int


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """The sizes of a sparse feed-forward layer; `shared_expert_intermediate_dim` is None without a shared expert."""

    num_local_experts: int
    num_experts_per_tok: int
    expert_intermediate_dim: int
    shared_expert_intermediate_dim: int | None = None

    def __post_init__(self) -> None:
        if self.num_experts_per_tok > self.num_local_experts:
            raise ConfigError(
                f"num_experts_per_tok={self.num_experts_per_tok} exceeds num_local_experts={self.num_local_experts}",
                expected="at least as many experts as are used for each token",
            )


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The token mixer of a block.

    A no-op has no other field, nor has one that a linear map replaces. `num_key_value_heads` is None for a mixer without
    such heads (Mamba, linear attention); `num_attention_heads` is None while the layer keeps the model's own number of
    query heads.
    """

    no_op: bool = False
    num_key_value_heads: int | None = None
    num_attention_heads: int | None = None
    mamba: MambaConfig | None = None
    replace_with_linear: bool = False

    def __post_init__(self) -> None:
        sized = bool(self.num_key_value_heads or self.num_attention_heads or self.mamba)
        _check_alone("attention", no_op=self.no_op, linear=self.replace_with_linear, sized=sized)

    @property
    def removed(self) -> bool:
        """Whether nothing of the teacher's attention is left: a no-op, or a linear map in its place."""
        return self.no_op or self.replace_with_linear


@dataclass(frozen=True, kw_only=True)
class FFNConfig:
    """The feed-forward half of a block: a no-op, a linear map, dense (`intermediate_size`) or sparse (`moe`)."""

    no_op: bool = False
    intermediate_size: int | None = None
    moe: MoEConfig | None = None
    replace_with_linear: bool = False

    def __post_init__(self) -> None:
        sized = self.intermediate_size is not None or self.moe is not None
        _check_alone("ffn", no_op=self.no_op, linear=self.replace_with_linear, sized=sized)
        if not self.removed and (self.intermediate_size is None) == (self.moe is None):
            raise ConfigError(
                f"an ffn has intermediate_size={self.intermediate_size} and moe={self.moe}",
                expected="exactly one of intermediate_size (dense) and moe (sparse), or no_op, or replace_with_linear",
            )

    @property
    def removed(self) -> bool:
        """Whether nothing of the teacher's ffn is left: a no-op, or a linear map in its place."""
        return self.no_op or self.replace_with_linear


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The architecture of one block: its two subblocks."""

    attention: AttentionConfig
    ffn: FFNConfig

    def half(self, name: str) -> AttentionConfig | FFNConfig:
        """Return one of the two halves, `attention` or `ffn`."""
        return self.attention if name == "attention" else self.ffn

    def with_half(self, name: str, **changes: Any) -> Self:
        """Return a copy in which one half has these fields changed; `no_op` and `replace_with_linear` clear the others."""
        half, alone = self.half(name), _only_field(changes)
        return self.exchanged(name, _alone(type(half), alone) if alone else replace(half, **changes))

    def exchanged(self, name: str, half: AttentionConfig | FFNConfig) -> Self:
        """Return a copy with another half, `attention` or `ffn`."""
        changed: dict[str, Any] = {name: half}
        return replace(self, **changed)

    def with_attention(self, **changes: Any) -> Self:
        """See `with_half`."""
        return self.with_half("attention", **changes)

    def with_ffn(self, **changes: Any) -> Self:
        """See `with_half`."""
        return self.with_half("ffn", **changes)

    def with_moe(self, **changes: Any) -> Self:
        """Return a copy whose sparse ffn has these fields changed.

        Raises:
            ConfigError: the ffn is not sparse.
        """
        if self.ffn.moe is None:
            raise ConfigError("this block's ffn is not sparse", expected="a block with ffn.moe")
        return replace(self, ffn=replace(self.ffn, moe=replace(self.ffn.moe, **changes)))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; `num_attention_heads` and `replace_with_linear` are left out while they are not set."""
        data = asdict(self)
        if data["attention"]["num_attention_heads"] is None:
            del data["attention"]["num_attention_heads"]
        for half in data.values():
            if not half["replace_with_linear"]:
                del half["replace_with_linear"]
        return data

    @classmethod
    def from_dict(cls, data: object, *, where: str = "block config") -> Self:
        """Read the JSON form.

        Args:
            data: a mapping as `to_dict` writes it, or as ModelOpt writes it.
            where: names the place in an error, for instance `block_configs[3]`.

        Raises:
            ConfigError: an unknown field, a wrong type, or a ModelOpt feature that is not supported here.
        """
        found = _mapping(data, where)
        _refuse_unknown(found, {"attention", "ffn"}, where)
        return cls(
            attention=_half(AttentionConfig, "mamba", MambaConfig, found.get("attention"), f"{where}.attention"),
            ffn=_half(FFNConfig, "moe", MoEConfig, found.get("ffn"), f"{where}.ffn"),
        )


def block_configs_from_json(data: object, *, where: str = "block_configs") -> list[BlockConfig]:
    """Read a list of block configs, as `config.json` holds it under `block_configs`."""
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise ConfigError(f"{where} is {type(data).__name__}", expected="a list with one entry per layer")
    return [BlockConfig.from_dict(entry, where=f"{where}[{index}]") for index, entry in enumerate(data)]


def _half(cls: type[_T], inner: str, inner_cls: type[Any], data: object, where: str) -> _T:
    """Read one half of a layer, of which `inner` has fields of its own (Mamba's, or those of experts)."""
    found = _mapping(data, where)
    if alone := _only_field(found, where):
        _refuse_unknown(found, _names(cls), where)
        return _alone(cls, alone)
    given = found.get(inner)
    built = None if given is None else _flat(inner_cls, given, f"{where}.{inner}")
    return _flat(cls, {**found, inner: built}, where)


def _flat(cls: type[_T], data: object, where: str) -> _T:
    found = _mapping(data, where)
    known = _names(cls)
    _refuse_unknown(found, known, where)
    values = {name: found[name] for name in known - set(_ALONE) if name in found}
    for name, value in values.items():
        if value is None or isinstance(value, MambaConfig | MoEConfig):
            continue
        if type(value) is not int or not 1 <= value < 1 << 31:
            raise ConfigError(
                f"{where}.{name} is {reprlib.repr(value)}", expected="an integer above 0, of at most 31 bits"
            )
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", expected="every required field") from error


def _only_field(found: Mapping[str, Any], where: str = "") -> str | None:
    """Return which of the fields that stand alone is true; the others say nothing then, as ModelOpt writes them.

    Raises:
        ConfigError: both are, or one is neither true nor false.
    """
    for name in _ALONE:
        if found.get(name) not in (None, False, True) or type(found.get(name)) is int:
            raise ConfigError(f"{where}.{name} is {reprlib.repr(found[name])}", expected="true or false")
    true = [name for name in _ALONE if found.get(name)]
    if len(true) > 1:
        raise ConfigError(f"{where} has {' and '.join(true)}", expected="one of the two")
    return true[0] if true else None


def _alone(cls: type[_T], field: str) -> _T:
    return cls(**{field: True})


def _check_alone(half: str, *, no_op: bool, linear: bool, sized: bool) -> None:
    if no_op and linear:
        raise ConfigError(f"the {half} is a no-op and a linear map", expected="one of the two")
    if (no_op or linear) and sized:
        text = "a no-op" if no_op else "a linear"
        raise ConfigError(f"{text} {half} has sizes", expected=f"{'no_op' if no_op else 'replace_with_linear'} alone")


def _names(cls: type[Any]) -> set[str]:
    return {field.name for field in fields(cls)}


def _mapping(data: object, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is {type(data).__name__}", expected="an object with named fields")
    return data


def _refuse_unknown(found: Mapping[str, Any], known: set[str], where: str) -> None:
    for name, value in found.items():
        if name in known:
            continue
        if name not in _NEUTRAL:
            raise ConfigError(
                f"{where}: unknown field {name!r}",
                expected=", ".join(sorted(known)),
                hint=nearest(str(name), known),
            )
        if value not in _NEUTRAL[name]:
            raise ConfigError(
                f"{where}.{name} is {value!r}, a ModelOpt feature that AnyBlock does not have",
                expected=f"{name} in {_NEUTRAL[name]}",
            )
