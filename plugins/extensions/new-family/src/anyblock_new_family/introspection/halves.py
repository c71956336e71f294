"""From weights that belong to a half to modules that leave with it, and to checkpoint names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from anyblock.contract.blocks import Half
from anyblock.descriptors import HalfLayout
from torch import nn

from anyblock_new_family.introspection.branches import LayerFacts


def half_layout(
    layer: nn.Module, facts: LayerFacts, half: Half, stored: Mapping[str, str]
) -> tuple[HalfLayout, set[str]] | None:
    """Return the layout of one half of a layer, with the weights that leave with it; None where the layer lacks it.

    Args:
        layer: the module.
        facts: its trace.
        half: which half.
        stored: `{checkpoint name below the layer: module name below the layer}`.
    """
    own = facts.weights(half)
    own |= _idle(layer, facts, own)
    units = list(_units(layer, "", own, facts.calls.keys()))
    gone = {name for unit in units for name in own if name.startswith(f"{unit}.")}
    if not gone:
        return None
    attending = facts.attending()
    attentions, zeros, norms, residuals = dict[str, int](), dict[str, int](), list[str](), dict[str, str]()
    for unit in units:
        module, call = layer.get_submodule(unit), facts.calls.get(unit)
        if all(tensor.dim() < 2 for tensor in module.parameters()):
            norms.append(unit)
            continue
        returns = 1 if call is None else call.returns
        if call is not None and call.residual is not None:
            residuals[unit] = call.residual
        attends = half == "attention" and any(name.startswith(f"{unit}.") for name in attending)
        (attentions if attends and call and call.layer_idx else zeros)[unit] = returns
    rest = set(stored.values()) - gone
    names = prefixes([n for n, m in stored.items() if m in gone], [n for n, m in stored.items() if m in rest])
    layout = HalfLayout(names=names, attentions=attentions, zeros=zeros, norms=tuple(norms), residuals=residuals)
    return layout, gone


def _idle(layer: nn.Module, facts: LayerFacts, own: set[str]) -> set[str]:
    """Return tensors that nothing reads, and that lie in a module of which everything else belongs to `own`."""
    used = {name for branch in facts.branches for name in branch.weights} | facts.path_weights
    found = set()
    for name in set(layer.state_dict()) - used:
        module = name.rpartition(".")[0]
        while module and not any(other.startswith(f"{module}.") for other in used):
            module = module.rpartition(".")[0]
        if module and all(other in own for other in used if other.startswith(f"{module}.")):
            found.add(name)
    return found


def _units(module: nn.Module, path: str, own: set[str], ran: Collection[str]) -> Iterable[str]:
    """Yield the largest modules with nothing but `own` weights; of a container that is never run itself, what is in it."""
    for name, child in module.named_children():
        below = f"{path}.{name}".removeprefix(".")
        inside = {f"{below}.{part}" for part in child.state_dict()}
        container = below not in ran and any(other.startswith(f"{below}.") for other in ran)
        if inside and inside <= own and not container:
            yield below
        elif inside & own:
            yield from _units(child, below, own, ran)


def prefixes(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return the shortest dotted prefixes that take all of `names` and none of `others`, sorted."""
    taken, found = list(others), set[str]()
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            prefix = ".".join(parts[:length])
            if not any(other == prefix or other.startswith(f"{prefix}.") for other in taken):
                found.add(prefix)
                break
    return tuple(sorted(found))
