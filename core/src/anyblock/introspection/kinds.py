"""Which sizes a kind of half has and how it can be made smaller, from what changed attributes did to its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from anyblock.introspection.facts import MixinCall
from anyblock.introspection.sizes import Effect

Names = Mapping[str, str]
"""`{module name below the layer: checkpoint name below the layer}`; of experts, that of the first one."""


@dataclass(frozen=True)
class Found:
    """A size with its attribute, the ways to prune it that are worth a try, and what was seen."""

    fields: Mapping[str, str]
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
            {"intermediate_size": effect.attribute},
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
        if len(cut) == 2 and any(old[0] * effect.after != new[0] * effect.before for old, new in grown):
            continue
        kept = [name for name in names if name in matrices and name not in cut]
        ordered = [name for name in names if name in cut]
        outputs = [name for name in kept if shapes[layer + name][1] >= shapes[layer + name][0] or name == kept[-1]]
        for output in reversed(outputs):
            queries = [name for name in kept if name != output]
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
                tries = [arguments]
                if len(linears) == 4 and shapes[layer + linears[0]][0] == 2 * shapes[layer + output][1]:
                    tries = [{**arguments, "query_row_multiple": 2}]
                seen = f"{effect.attribute} {effect.before} → {effect.after} changed {', '.join(sorted(changed or ()))}"
                yield Found(
                    {"num_key_value_heads": effect.attribute},
                    tuple(MixinCall("attention_mixins", each, ("kv_heads", "query_groups")) for each in tries),
                    seen,
                )


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
            yield from _sparse(count, changed, width, touched, layer, stacked, names, shapes, text)


def _sparse(
    count: Effect,
    changed: list[str],
    width: Effect,
    touched: list[str],
    layer: str,
    stacked: set[str],
    names: Names,
    shapes: Mapping[str, Any],
    text: Any,
) -> Iterator[Found]:
    routers = [name for name in changed if len(shapes[layer + name]) == 2 and name.endswith(".weight")]
    if len(routers) != 1:
        return
    router = names[routers[0]].removesuffix(".weight")
    moe, _, gate = router.rpartition(".")
    own_moe, _, own_gate = routers[0].removesuffix(".weight").rpartition(".")
    stored = [names[name] for name in names if name in stacked]
    fields = {"num_local_experts": count.attribute, "expert_intermediate_dim": width.attribute}
    arguments: dict[str, Any] = {"moe": moe, "router": gate}
    seen = f"{count.attribute} {count.before} → {count.after} changed {', '.join(sorted(changed))}; "
    seen += f"{width.attribute} changed {', '.join(sorted(touched))}"
    kinds = ("experts_removal", "expert_intermediate")
    if all(".experts.0." in name for name in names["#experts"].split("|")):
        parts = names["#experts"].split("|")
        linears = [name.split(".experts.0.")[1].removesuffix(".weight") for name in parts]
        arguments["correction_bias"] = any(name.endswith("e_score_correction_bias") for name in changed)
        arguments |= {"groups": "n_group"} if getattr(text, "n_group", None) else {}
        arguments |= {"module": own_moe} if own_moe != moe else {}
        arguments |= {"module_router": own_gate} if own_gate != gate else {}
        for last in reversed(range(len(linears))):
            order = (*[name for index, name in enumerate(linears) if index != last], linears[last])
            yield Found(fields, (MixinCall("sparse_mixins", {**arguments, "linears": order}, kinds),), seen)
    elif stored:
        tall = [name for name in stacked if name.endswith("gate_up_proj")]
        dims = width.dims(layer + tall[0]) if tall else [1]
        arguments |= {"transposed": True} if dims == [2] else {}
        for how in ("halves", "interleaved"):
            yield Found(fields, (MixinCall("fused_sparse_mixins", {**arguments, "gate_up": how}, kinds),), seen)


def _delta(effect: Effect, name: str) -> int:
    old, new = effect.changed[name]
    return max(abs(a - b) for a, b in zip(old, new, strict=True))
