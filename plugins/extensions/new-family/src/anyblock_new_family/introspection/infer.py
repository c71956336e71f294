"""`infer_family`: from a configuration class to an `InferredFamily`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anyblock.contract.blocks import HALVES
from anyblock.descriptors import HalfLayout, Size
from anyblock.errors import UnsupportedModelError, nearest

from anyblock_new_family.introspection import kinds
from anyblock_new_family.introspection.branches import LayerFacts, trace_layer
from anyblock_new_family.introspection.confirm import Trial, reason
from anyblock_new_family.introspection.descriptor import inferred_model_family, mixins_of
from anyblock_new_family.introspection.facts import InferredFamily, MixinCall
from anyblock_new_family.introspection.halves import half_layout, prefixes
from anyblock_new_family.introspection.layers import LayerList, find_layers
from anyblock_new_family.introspection.model import TinyModel, tiny_model
from anyblock_new_family.introspection.names import decoder_paths, outer_names, stored_names
from anyblock_new_family.introspection.sizes import Effect, effects, layer_count, ratio_without
from anyblock_new_family.introspection.topk import top_k_attribute


def infer_family(model_type: str, config: Any = None) -> InferredFamily:
    """Find out how the models of a `model_type` are built, on tiny models with random weights.

    Args:
        model_type: as transformers names it.
        config: the Hugging Face configuration of the model in question, whose structure the tiny models have; None for
            what the class's own defaults give, with every optional tensor.

    Raises:
        UnsupportedModelError: transformers does not know it, or its layers are no residual stream with branches.
    """
    return infer_from(tiny_model(config_class_of(model_type), config))


def config_class_of(model_type: str) -> type[Any]:
    """Return the configuration class of a `model_type`.

    Raises:
        UnsupportedModelError: transformers does not know it.
    """
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"transformers knows no model_type {model_type!r}",
            expected="a model_type of transformers",
            hint=nearest(model_type, list(CONFIG_MAPPING)),
        )
    found: type[Any] = CONFIG_MAPPING[model_type]
    return found


def infer_from(tiny: TinyModel) -> InferredFamily:
    """Find out the same from a tiny model at hand.

    Raises:
        UnsupportedModelError: its layers are no residual stream with branches.
    """
    listed = find_layers(tiny.model, tiny.ids, int(tiny.text.num_hidden_layers))
    facts = [trace_layer(run, getattr(tiny.text, "hidden_size", None)) for run in listed.runs]
    stored = stored_names(tiny, listed.path)
    work = _Work(tiny, listed, facts, stored, effects(tiny.config))
    return work.run()


class _Work:
    def __init__(
        self,
        tiny: TinyModel,
        listed: LayerList,
        facts: list[LayerFacts],
        stored: list[dict[str, str]],
        found: list[Effect],
    ) -> None:
        self.tiny, self.listed, self.facts, self.stored, self.effects = tiny, listed, facts, stored, found
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tiny.model.state_dict().items()}
        self.evidence: dict[str, str] = {}
        self.tries: dict[str, list[MixinCall]] = {}
        self.not_implemented: dict[str, str] = {}
        self.unsupported: dict[str, str] = {}

    def run(self) -> InferredFamily:
        """Put together what was found, and confirm it on the tiny model."""
        attributes: dict[str, Any] = {"attention_kinds": {}, "ffn_kinds": {}, "attention_by": None, "ffn_by": None}
        attributes |= {key: value for half in HALVES for key, value in self._half(half).items()}
        attributes |= self._outside(attributes)
        inferred = InferredFamily(
            model_type=self.tiny.config.model_type, attributes=attributes, mixins=(), tiny=self.tiny.tiny
        )
        return self._confirmed(inferred)

    # -- halves -----------------------------------------------------------------------------------------------------

    def _half(self, half: str) -> dict[str, Any]:
        layouts: list[tuple[HalfLayout, set[str]] | None] = [
            half_layout(run.module, facts, half, stored)  # type: ignore[arg-type]
            for run, facts, stored in zip(self.listed.runs, self.facts, self.stored, strict=True)
        ]
        different: list[tuple[HalfLayout, int]] = []
        for index, found in enumerate(layouts):
            if found is not None and not any(self._same(found[1], layouts[at]) for _, at in different):
                different.append((self._sized(half, index, found[0], found[1]), index))
        if not different:
            return {f"{half}_kinds": {}}
        own = [
            next((n for n, (_, at) in enumerate(different) if found and self._same(found[1], layouts[at])), None)
            for found in layouts
        ]
        by, names = self._told_by(own) if len(different) > 1 or None in own else (None, {})
        named: dict[str, HalfLayout] = {}
        unmarked = False  # one kind may be known by what it lacks
        for number, (layout, index) in enumerate(different):
            mark = None
            if len(different) > 1 or None in own:
                others = set().union(
                    *(set(self.stored[at].values()) for _, at in different if at != index),
                    *(set(stored.values()) for stored, kind in zip(self.stored, own, strict=True) if kind is None),
                )
                own_names = layouts[index][1] - others  # type: ignore[index]
                # A switch of the configuration may take biases away.
                mark = min(own_names, key=lambda name: (name.endswith("bias"), name), default=None)
                if mark is None and (None in own or unmarked):
                    raise UnsupportedModelError(
                        f"nothing tells the {half} of layer {index} from others", expected="a parameter"
                    )
                unmarked = unmarked or mark is None
            for name in names.get(number, [half if len(different) == 1 else f"{half}_{number}"]):
                named[name] = replace(layout, mark=mark)
        return {f"{half}_kinds": named, f"{half}_by": by}

    def _same(self, own: set[str], other: tuple[HalfLayout, set[str]] | None) -> bool:
        return other is not None and own == other[1]

    def _told_by(self, own: list[int | None]) -> tuple[str | None, dict[int, list[str]]]:
        """Return the config's list that tells which layer is of which kind, with the kinds' names in it."""
        for attribute, values in self.tiny.text.to_dict().items():
            if not (isinstance(values, list) and len(values) == len(own) and all(isinstance(v, str) for v in values)):
                continue
            meant: dict[str, set[int | None]] = {}
            for value, kind in zip(values, own, strict=True):
                meant.setdefault(value, set()).add(kind)
            if all(len(found) == 1 for found in meant.values()):
                names: dict[int, list[str]] = {}
                for value, found in meant.items():
                    (kind,) = found
                    if kind is not None:
                        names.setdefault(kind, []).append(value)
                return attribute, names
        return None, {}

    def _sized(self, half: str, index: int, layout: HalfLayout, own: set[str]) -> HalfLayout:
        layer = f"{self.listed.path}.{index}."
        names = {module: name for name, module in self.stored[index].items()}
        stacked = [name for name in own if len(self.shapes[layer + name]) == 3 and not name.endswith("conv1d.weight")]
        experts = [name for name, module in self.stored[index].items() if module in stacked and ".experts.0." in name]
        names["#experts"] = "|".join(experts) or "none"
        if half == "attention" and not self.facts[index].attends:
            found = []
        elif half == "attention":
            found = list(kinds.key_value_heads(self.effects, layer, own, names, self.shapes))
        elif stacked:
            found = list(kinds.experts(self.effects, layer, own, names, self.shapes, self.tiny.text))
        else:
            found = list(kinds.dense_ffn(self.effects, layer, own, names, self.shapes))
        if not found:
            return self._unsized(half, layout, layer, own, self.facts[index].attends)
        chosen, by_name = found[0], ""
        fields = dict(chosen.fields)
        if stacked and half == "ffn":
            top = top_k_attribute(self.tiny, index, self.facts[index].top_k)
            if top is None:
                self.not_implemented.setdefault(
                    "experts_removal", "the attribute behind the router's top-k was not found"
                )
                return self._unsized(half, layout, layer, own, attends=False)
            fields["num_experts_per_tok"] = Size(top)
            by_name = "" if self.facts[index].top_k else f"; no topk ran, {top} is taken by its name"
            if "expert_intermediate" not in chosen.tries[0].kinds:
                self.not_implemented["expert_intermediate"] = (
                    "the shared expert takes its width from the same attribute"
                )
        elif half == "ffn":
            size = fields["intermediate_size"]
            if ratio := ratio_without(self.tiny.config, size.attribute, layer):
                fields["intermediate_size"] = replace(size, default=Size("hidden_size", times=ratio))
        same = [each for each in found if each.fields == chosen.fields]
        for each in same:
            for call in each.tries:
                key = call.kinds[0]
                if call not in self.tries.setdefault(key, []):
                    self.tries[key].append(call)
        self.evidence[f"{half} of layer {index}: " + ", ".join(fields)] = chosen.evidence + by_name
        return replace(layout, sizes=fields)

    def _unsized(self, half: str, layout: HalfLayout, layer: str, own: set[str], attends: bool) -> HalfLayout:
        if half == "attention" and attends:  # every query head has keys and values of its own; `Trial.cache` checks it
            return replace(layout, sizes={"num_key_value_heads": Size("num_attention_heads", fixed=True)})
        if half == "attention":
            return layout
        # The width of a branch that no attribute sets: a multiple of the hidden size, as it is in the tiny model.
        hidden = int(self.tiny.text.hidden_size)
        widths = [size for name in own for size in self.shapes[layer + name] if len(self.shapes[layer + name]) > 1]
        wide = max(widths, default=hidden)
        factor = max(1, wide // hidden)
        self.not_implemented.setdefault(
            "ffn_intermediate", "no attribute of the config sets the width of this ffn by itself"
        )
        return replace(layout, sizes={"intermediate_size": Size("hidden_size", times=factor, fixed=True)})

    # -- outside of the layers --------------------------------------------------------------------------------------

    def _outside(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        tiny, listed = self.tiny, self.listed
        model = tiny.model
        paths = {id(module): name for name, module in model.named_modules()}
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        if head is None or id(embedding) not in paths:
            raise UnsupportedModelError("the model names no input embedding or output head", expected="both")
        head_path = paths[id(head)]
        behind = listed.after[: listed.after.index(head_path)] if head_path in listed.after else []
        norms = [name for name in behind if _is_norm(model.get_submodule(name))]
        halves = [kind for half in HALVES for kind in attributes[f"{half}_kinds"].values()]
        taken = {name for kind in halves for name in kind.names}
        every = sorted({name for stored in self.stored for name in stored})
        rest = [n for n in every if not any(n == t or n.startswith(f"{t}.") for t in taken)]
        covered = [n for n in every if n not in rest]
        layers = {type(run.module) for run in listed.runs}
        text = next(
            (key for key in getattr(tiny.config, "sub_configs", {}) if getattr(tiny.config, key, None) is tiny.text),
            None,
        )
        outside = outer_names(tiny, listed, head_path)
        classes = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in layers)
        return {
            "decoder_layer": tuple(classes) if len(classes) > 1 else classes[0],
            **decoder_paths(listed.path, paths[id(embedding)], next(reversed(norms or behind), ""), head_path, outside),
            "layer_count": layer_count(tiny.config, listed.path, len(listed.runs)),
            "other": prefixes(rest, covered),
            "text_config": text if tiny.text is not tiny.config else None,
            "extra_groups": outside.extra,
        }

    # -- trials -----------------------------------------------------------------------------------------------------

    def _confirmed(self, inferred: InferredFamily) -> InferredFamily:
        for name in ("kv_heads", "query_groups", "ffn_intermediate", "experts_removal", "expert_intermediate"):
            if name not in self.not_implemented and not any(
                name in call.kinds for calls in self.tries.values() for call in calls
            ):
                self.unsupported.setdefault(name, "no attribute of the config was found that changes such units")
        trial = Trial(inferred_model_family(inferred), self.tiny)  # groups and block configs are right, or nothing is
        calls: list[MixinCall] = []
        for options in self.tries.values():
            calls += self._best(trial, options)
        for half in HALVES:
            try:
                trial.no_op(half)
            except Exception as error:  # noqa: BLE001 - a model may fail in any way without a half
                self.not_implemented[f"{half}_no_op"] = reason(error)
            if not inferred.kinds(half):
                self.unsupported[f"{half}_no_op"] = f"no layer has this half: {half}"
        inferred = self._with_cache(trial, inferred)
        for call in calls:
            for kind in call.kinds:
                self.unsupported.pop(kind, None)
        self.not_implemented.setdefault(
            "hidden_size", "what the residual stream's size is coupled with is not inferred"
        )
        self.not_implemented = {
            name: text for name, text in self.not_implemented.items() if name not in self.unsupported
        }
        attributes = {
            **inferred.attributes,
            "not_implemented": dict(sorted(self.not_implemented.items())),
            "unsupported": dict(sorted(self.unsupported.items())),
        }
        unknown = tuple(f"{name}: {text}" for name, text in sorted(self.not_implemented.items()))
        return replace(inferred, attributes=attributes, mixins=tuple(calls), evidence=self.evidence, unknown=unknown)

    def _with_cache(self, trial: Trial, inferred: InferredFamily) -> InferredFamily:
        """Return the family with the cache that holds: by the formula for grouped attention, or else as it is measured."""
        for measured in (False, True):
            known = dict(self.not_implemented)  # whether the ffn can be left out when the cache is measured
            own = replace(
                inferred,
                attributes={**inferred.attributes, "measured_cache": measured, "not_implemented": known},
            )
            try:
                trial.cache(inferred_model_family(own))
            except Exception as error:  # noqa: BLE001 - a model may fail in any way with a cache
                self.not_implemented["build"] = self.not_implemented["search"] = reason(error)
                continue
            for name in ("build", "search"):
                self.not_implemented.pop(name, None)
            return own
        return inferred

    def _best(self, trial: Trial, options: list[MixinCall]) -> list[MixinCall]:
        """Return the first way to prune of which most kinds hold; those that do not are declared as not_implemented."""
        best: tuple[MixinCall, dict[str, str]] | None = None
        for call in options:
            faults: dict[str, str] = {}
            for kind in call.kinds:
                try:
                    trial.prune(mixins_of(call, trial.checkpoint_layer)[kind])
                except Exception as error:  # noqa: BLE001 - a wrong guess may fail in any way
                    faults[kind] = reason(error)
            if best is None or len(faults) < len(best[1]):
                best = call, faults
            if not faults:
                break
        if best is None:
            return []
        self.not_implemented.update(best[1])
        return [best[0]]


def _is_norm(module: Any) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(tensor.dim() < 2 for tensor in parameters)
