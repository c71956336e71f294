"""`HalfLayout` and `Size`: what the attention or the ffn of a layer consists of, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyblock.contract.blocks import AttentionConfig, FFNConfig, MambaConfig, MoEConfig
from anyblock.errors import ConfigError, PluginError, UnsupportedModelError, nearest

if TYPE_CHECKING:
    from torch import nn

_Half = TypeVar("_Half", AttentionConfig, FFNConfig)
_NESTED: Final[Mapping[str, type[Any]]] = {"mamba": MambaConfig, "moe": MoEConfig}
_OPTIONAL: Final = ("num_key_value_heads", "num_attention_heads", "shared_expert_intermediate_dim")
_FIELDS: Final = {
    "num_key_value_heads",
    "num_attention_heads",
    "intermediate_size",
    *(own.name for nested in _NESTED.values() for own in fields(nested)),
}


@dataclass(frozen=True)
class Size:
    """Which attribute of the language model's configuration a size comes from: `attribute * times / per`.

    Attributes:
        attribute: its own name, no alias; of a list each layer has its own entry.
        times: a factor, or the attribute with the factor (a shared expert as wide as so many routed ones).
        per: a divisor.
        default: where the size comes from when the attribute is None.
        fixed: a layer's constructor does not take the size from its configuration, so that no child can have another.
    """

    attribute: str
    times: int | str = 1
    per: int = 1
    default: Size | None = None
    fixed: bool = False

    def read(self, config: Any, layer_index: int) -> int | None:
        """Return the size of a layer, from its configuration; None where the attribute is None and has no default.

        Raises:
            ConfigError: the attribute is not a whole number, or a list with fewer entries than layers.
        """
        value = _entry(config, self.attribute, layer_index)
        factor = _entry(config, self.times, layer_index) if isinstance(self.times, str) else self.times
        if value is None or factor is None:
            return self.default.read(config, layer_index) if self.default else None
        if type(value) is not int or type(factor) is not int:
            raise ConfigError(f"{self.attribute} is {value!r}", expected="a whole number, or a list of one per layer")
        return value * factor // self.per


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
        sizes: `{field of the block config: size}`, fields of `MambaConfig` and `MoEConfig` included.
        mark: a parameter that only layers of this kind have; None for layers that have the mark of no other kind.
    """

    names: tuple[str, ...]
    attentions: Mapping[str, int] = field(default_factory=dict)
    zeros: Mapping[str, int] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    residuals: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    mark: str | None = None

    def __post_init__(self) -> None:
        for name in ("names", "norms"):
            if isinstance(getattr(self, name), str):
                raise PluginError(f"HalfLayout.{name} is {getattr(self, name)!r}", expected="a tuple of names")
        for name in sorted(self.sizes.keys() - _FIELDS):
            raise PluginError(
                f"HalfLayout.sizes has {name!r}", expected="fields of block configs", hint=nearest(name, _FIELDS)
            )

    def config(self, half: type[_Half], config: Any, layer_index: int) -> _Half:
        """Return this half of a layer of the unpruned model.

        Raises:
            ConfigError: a size is not a whole number.
            UnsupportedModelError: the configuration says nothing of a size that the half must have.
        """
        values: dict[str, Any] = {name: size.read(config, layer_index) for name, size in self.sizes.items()}
        missing = [name for name, value in values.items() if value is None and name not in _OPTIONAL]
        if missing:
            name = missing[0]
            raise UnsupportedModelError(f"layer {layer_index} has no {name}", expected=f"{self.sizes[name].attribute}")
        for part, nested in _NESTED.items():
            own = {each.name: values.pop(each.name) for each in fields(nested) if each.name in values}
            values |= {part: nested(**own)} if own else {}
        return half(**values)

    def overrides(self, half: AttentionConfig | FFNConfig) -> Iterator[tuple[str, int]]:
        """Yield the attributes, with their values, by which a layer's constructor builds this half.

        A half of another shape (dense and with experts, attention and Mamba) has none.
        """
        sized = next((found for part in _NESTED if (found := getattr(half, part, None))), half)
        if not all(hasattr(sized, name) for name in self.sizes):
            return
        for name, size in self.sizes.items():
            value = getattr(sized, name)
            if value is None or size.fixed:
                continue
            if isinstance(size.times, str):
                unit = next(own for own, other in self.sizes.items() if other == Size(size.attribute))
                yield size.times, value // getattr(sized, unit)
            else:
                yield size.attribute, value * size.per // size.times

    def remove(self, layer: nn.Module) -> None:
        """Put no-ops in the places of this half's modules in a built layer; those that are gone already stay gone.

        Raises:
            AttributeError: the layer has none of the modules that do the half's work.
        """
        from anyblock.modeling.no_op import NoOpAttention, NoOpFFN, NoOpNorm, NoOpResidual

        workers = (*self.attentions, *self.zeros, *self.residuals)
        there = {name: owner for name in (*workers, *self.norms) if (owner := _owner(layer, name)) is not None}
        if workers and there.keys().isdisjoint(workers):
            raise AttributeError(f"{type(layer).__name__} has none of the modules {', '.join(workers)}")
        for name, owner in there.items():
            leaf = name.rpartition(".")[2]
            old = getattr(owner, leaf)
            if old is None or isinstance(old, NoOpAttention | NoOpFFN | NoOpNorm):
                continue
            new: nn.Module = NoOpNorm(old)
            if name in self.residuals:
                new = NoOpResidual.replacing(old, argument=self.residuals[name], returns=self.attentions.get(name, 1))
            elif name in self.attentions:
                new = NoOpAttention.replacing(old, returns=self.attentions[name])
            elif name in self.zeros:
                new = NoOpFFN(returns=self.zeros[name], width=_other_width(old))
            setattr(owner, leaf, new)


def _entry(config: Any, attribute: str, layer_index: int) -> Any:
    value = getattr(config, attribute)
    if not isinstance(value, list | tuple):
        return value
    if layer_index >= len(value):
        raise ConfigError(f"{attribute} has {len(value)} entries", expected="one for each hidden layer")
    return value[layer_index]


def _owner(layer: nn.Module, name: str) -> nn.Module | None:
    """Return the module that has what `name` names below a layer; None where there is no such thing."""
    parent, _, leaf = name.rpartition(".")
    try:
        owner = layer.get_submodule(parent)
    except AttributeError:
        return None
    return owner if hasattr(owner, leaf) else None


def _other_width(module: nn.Module) -> int | None:
    """Return the width of what a linear map to another width returns; None of any other module."""
    own, given = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return own if isinstance(own, int) and own != given else None
