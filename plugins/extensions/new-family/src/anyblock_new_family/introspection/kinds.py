"""Which sizes a kind of half has and how it can be made smaller, from what changed attributes did to its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from anyblock.descriptors import Size

from anyblock_new_family.introspection.facts import MixinCall
from anyblock_new_family.introspection.sizes import Effect

Names = Mapping[str, str]
"""`{module name below the layer: checkpoint name below the layer}`; of experts, that of the first one."""


@dataclass(frozen=True)
class Found:
    """A size with its attribute, the ways to prune it that are worth a try, and what was seen."""

    fields: Mapping[str, Size]
    tries: tuple[MixinCall, ...]
    evidence: str


def common(names: Iterable[str]) -> str:
    """Return the longest dotted prefix of all names."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def below(prefix: str, name: str) -> str:
    """Return a name below a prefix."""
    return name.removeprefix(f"{prefix}.") if prefix else name


def within(effect: Effect, layer: str, own: set[str]) -> list[str] | None:
    """Return the tensors of one layer's half that an effect changes; None when it changes anything else in that layer."""
    names = [name.removeprefix(layer) for name in effect.changed if name.startswith(layer)]
    return names if names and set(names) <= own else None


def dense_ffn(
    effects: list[Effect], layer: str, own: set[str], names: Names, shapes: Mapping[str, Any]
) -> Iterator[Found]:
    """Yield what may be the width of a dense ffn."""
    for effect in effects:
        changed = within(effect, layer, own)
        matrices = [name for name in changed or [] if len(shapes[layer + name]) == 2]
        if changed is None or len(matrices) < 2 or not all(name.endswith(".weight") for name in matrices):
            continue
        delta = {name: _delta(effect, layer + name) for name in matrices}
        step = min(delta.values())
        lasts = {name: effect.dims(layer + name) for name in matrices}
        output, inputs = matrices[-1], matrices[:-1]
        for candidate in matrices:
            if sum(lasts[name] == lasts[candidate] for name in matrices) == 1 and len(matrices) > 2:
                output, inputs = candidate, [name for name in matrices if name != candidate]
        width = shapes[layer + output][lasts[output][0]]
        if effect.before and effect.before % width:
            continue  # the attribute is a multiple of something else, and no number of channels
        parts = effect.before // width if effect.before else 1
        transposed = lasts[output] == [0]
        fused = [name for name in inputs if delta[name] == 2 * step]
        stored = [names[name].removesuffix(".weight") for name in (*inputs, output)]
        modules = [name.removesuffix(".weight") for name in (*inputs, output)]
        prefix, owner = common(stored), common(modules)
        arguments: dict[str, Any] = {"ffn": prefix, "linears": tuple(below(prefix, name) for name in stored)}
        arguments |= {"transposed": True} if transposed else {}
        arguments |= {"module": owner} if owner != prefix else {}
        tries = [{**arguments, "fused_gate_up": how} for how in ("halves", "interleaved")] if fused else [arguments]
        seen = f"{effect.attribute} {effect.before} → {effect.after} changed {', '.join(sorted(changed))}"
        yield Found(
            {"intermediate_size": Size(effect.attribute, per=parts)},
            tuple(MixinCall("ffn_mixins", each, ("ffn_intermediate",)) for each in tries),
            seen,
        )


def key_value_heads(
    effects: list[Effect], layer: str, own: set[str], names: Names, shapes: Mapping[str, Any]
) -> Iterator[Found]:
    """Yield what may be the number of key-value heads."""
    matrices = [name for name in own if len(shapes[layer + name]) == 2 and name.endswith(".weight")]
    for effect in effects:
        changed = within(effect, layer, own)
        cut = [name for name in matrices if changed and name in changed]
        if not cut or len(cut) > 2 or any(effect.dims(layer + name) != [0] for name in cut):
            continue
        # A number of query heads may set the width of a key-value head as well, and then they shrink as it grows.
        grown = [effect.changed[layer + name] for name in cut]
        if any((new[0] > old[0]) != (effect.after > effect.before) for old, new in grown):
            continue
        if any(old[0] < 2 * effect.before for old, _ in grown):
            continue  # one row for each unit: it is a head's width
        if len(cut) == 2 and any(old[0] * effect.after != new[0] * effect.before for old, new in grown):
            continue
        kept = [name for name in names if name in matrices and name not in cut]
        ordered = [name for name in names if name in cut]
        outputs = [name for name in kept if shapes[layer + name][1] >= shapes[layer + name][0] or name == kept[-1]]
        for output in reversed(outputs):
            # A gate as wide as the queries would do in their place, but no one would call it that.
            queries = sorted((name for name in kept if name != output), key=lambda name: "gate" in name)
            if len(cut) == 2:
                options = [[query, *ordered, output] for query in queries]
            else:
                options = [[*ordered, output]]
            for linears in options:
                stored = [names[name].removesuffix(".weight") for name in linears]
                modules = [name.removesuffix(".weight") for name in linears]
                prefix, owner = common(stored), common(modules)
                arguments: dict[str, Any] = {
                    "attention": prefix,
                    "linears": tuple(below(prefix, name) for name in stored),
                }
                arguments |= {"module": owner} if owner != prefix else {}
                arguments |= _with_query_heads(effects, layer, own, names, linears, prefix, shapes)
                tries = [arguments]
                if len(linears) == 4 and shapes[layer + linears[0]][0] == 2 * shapes[layer + output][1]:
                    tries = [{**arguments, "query_row_multiple": 2}]
                seen = f"{effect.attribute} {effect.before} → {effect.after} changed {', '.join(sorted(changed or ()))}"
                yield Found(
                    {"num_key_value_heads": Size(effect.attribute)},
                    tuple(MixinCall("attention_mixins", each, ("kv_heads", "query_groups")) for each in tries),
                    seen,
                )


def _with_query_heads(
    effects: list[Effect],
    layer: str,
    own: set[str],
    names: Names,
    linears: list[str],
    prefix: str,
    shapes: Mapping[str, Any],
) -> dict[str, tuple[str, ...]]:
    """Return what else has rows for every query head: gates as wide as the heads, and tensors with one row for each."""
    query, output = linears[0], linears[-1]
    heads = [
        effect
        for effect in effects
        if layer + query in effect.changed
        and effect.dims(layer + query) == [0]
        and not any(layer + name in effect.changed for name in linears[1:-1])
    ]
    if len(heads) != 1:
        return {}
    effect, width = heads[0], shapes[layer + output][1]
    known = {name.removesuffix(".weight") for name in linears}
    followers = [
        name
        for name in names
        if name in own
        and name.removesuffix(".weight").removesuffix(".bias") not in known
        and layer + name in effect.changed
        and effect.dims(layer + name) == [0]
    ]
    rows = {name: shapes[layer + name][0] for name in followers}
    found = {
        "gates": tuple(
            below(prefix, names[name].removesuffix(".weight"))
            for name in followers
            if rows[name] == width
            and name.endswith(".weight")
            and len(shapes[layer + name]) == 2  # no norm over all heads
        ),
        "head_rows": tuple(below(prefix, names[name]) for name in followers if rows[name] == effect.before),
    }
    return {key: value for key, value in found.items() if value and value != ("sinks",)}  # that name is the default


def experts(
    effects: list[Effect], layer: str, own: set[str], names: Names, shapes: Mapping[str, Any], text: Any
) -> Iterator[Found]:
    """Yield what may be the number and the width of experts."""
    stacked = {name for name in own if len(shapes[layer + name]) == 3}
    counts, widths = [], []
    for effect in effects:
        changed = within(effect, layer, own) or []
        hit = [name for name in changed if name in stacked]
        if not hit:
            continue
        if all(0 in effect.dims(layer + name) for name in hit):
            counts.append((effect, changed))
        elif len(hit) == len(stacked):
            widths.append((effect, changed))
    for count, changed in counts:
        for width, touched in widths:
            yield from _sparse(count, changed, width, touched, effects, layer, stacked, names, shapes, text)


def _sparse(
    count: Effect,
    changed: list[str],
    width: Effect,
    touched: list[str],
    effects: list[Effect],
    layer: str,
    stacked: set[str],
    names: Names,
    shapes: Mapping[str, Any],
    text: Any,
) -> Iterator[Found]:
    routers = [name for name in changed if len(shapes[layer + name]) == 2 and name.endswith(".weight")]
    if len(routers) != 1:
        return
    fields = {"num_local_experts": Size(count.attribute), "expert_intermediate_dim": Size(width.attribute)}
    seen = f"{count.attribute} {count.before} → {count.after} changed {', '.join(sorted(changed))}; "
    seen += f"{width.attribute} changed {', '.join(sorted(touched))}"
    shared = [name for name in touched if name not in stacked and name not in changed]
    multiple = _multiple(effects, layer, shared) if shared else None
    kinds = ("experts_removal", "expert_intermediate") if multiple or not shared else ("experts_removal",)
    if multiple:
        fields["shared_expert_intermediate_dim"] = Size(width.attribute, times=multiple.attribute)
        seen += f"; {multiple.attribute} changed {', '.join(sorted(shared))} alone"
    router = routers[0].removesuffix(".weight")
    parts = [] if names["#experts"] == "none" else names["#experts"].split("|")
    ordered = [name for name in names if name in stacked]
    holders = [f"{name.partition('.experts.0.')[0]}.experts" for name in parts] or [names[name] for name in ordered]
    stored_router = names[routers[0]].removesuffix(".weight")
    moe = common(
        [f"{stored_router}.weight", *(f"{name}." for name in holders)]
        if parts
        else [f"{stored_router}.weight", *holders]
    )
    owner = common([routers[0], *ordered])
    biases = [below(moe, names[name]) for name in changed if len(shapes[layer + name]) == 1]
    biases = [name for name in biases if name != f"{below(moe, stored_router)}.bias"]
    arguments: dict[str, Any] = {"moe": moe, "router": below(moe, stored_router)}
    arguments |= {"correction_bias": biases[0]} if biases else {}
    arguments |= {"groups": "n_group"} if parts and getattr(text, "n_group", None) else {}
    arguments |= {"shared_is_multiple": True} if multiple else {}
    arguments |= {"module": owner} if owner != moe else {}
    inside = below(owner, router)
    for watched in dict.fromkeys((inside, inside.rpartition(".")[0] or inside)):  # the router, or the module around it
        own = arguments | ({"module_router": watched} if watched != arguments["router"] else {})
        if parts:
            linears = [name.split(".experts.0.")[1].removesuffix(".weight") for name in parts]
            for last in reversed(range(len(linears))):
                order = (*[name for index, name in enumerate(linears) if index != last], linears[last])
                yield Found(fields, (MixinCall("sparse_mixins", {**own, "linears": order}, kinds),), seen)
        elif len(ordered) == 2:
            grown = {name: _delta(width, layer + name) for name in ordered}
            first, second = sorted(ordered, key=lambda name: -grown[name])
            tensors = tuple(below(moe, names[name]) for name in (first, second))
            own |= {"tensors": tensors} if tensors != ("experts.gate_up_proj", "experts.down_proj") else {}
            own |= {"transposed": True} if width.dims(layer + second) == [1] else {}
            hows = ("halves", "interleaved") if grown[first] == 2 * grown[second] else (None,)
            for how in hows:
                yield Found(fields, (MixinCall("fused_sparse_mixins", {**own, "gate_up": how}, kinds),), seen)


def _multiple(effects: list[Effect], layer: str, shared: list[str]) -> Effect | None:
    """Return the attribute that says how many experts wide the shared expert is: it changes these tensors alone."""
    for effect in effects:
        if set(within(effect, layer, set(shared)) or ()) == set(shared) and all(
            new[dim] * effect.before == old[dim] * effect.after
            for old, new in (effect.changed[layer + name] for name in shared)
            for dim in range(len(old))
            if old[dim] != new[dim]
        ):
            return effect
    return None


def _delta(effect: Effect, name: str) -> int:
    old, new = effect.changed[name]
    return max(abs(a - b) for a, b in zip(old, new, strict=True))
