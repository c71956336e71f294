"""Which of core's bases a generated class can derive from, tried on the tiny model before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from anyblock.contract.capabilities import CAPABILITIES
from anyblock.descriptors import DenseDescriptor, SparseDescriptor
from anyblock.errors import AnyBlockError
from anyblock.family import ModelFamily
from anyblock.introspection import InferredFamily, inferred_model_family
from anyblock.introspection.confirm import Trial
from anyblock.introspection.model import TinyModel

Chosen = tuple[type[DenseDescriptor], dict[str, Any]]
_NEEDED: Final = ("convert", "build", "attention_no_op", "ffn_no_op", "search")


def fitting_base(inferred: InferredFamily) -> Chosen | None:
    """Return the base for dense or for sparse decoders, with the class attributes that make it answer as what was inferred.

    None where neither does. A class is made of them and asked everything that the inferred descriptor is asked, and the
    halves are removed with it on the tiny model: what is written is known to agree.
    """
    facts = inferred.attributes
    attention, ffn = list(inferred.kinds("attention").values()), list(inferred.kinds("ffn").values())
    if set(_NEEDED) & {*facts["lacking"], *facts["absent"]} or len(attention) != 1 or len(ffn) != 1 or facts["other"]:
        return None
    calls = {call.function: call.arguments for call in inferred.mixins}
    outside = _outside(facts)
    first, second = attention[0], ffn[0]
    if outside is None or len(first.attentions) != 1 or first.zeros or len(second.zeros) != 1:
        return None
    (own, returns), (other, returned) = *first.attentions.items(), *second.zeros.items()
    stored = [name for name in second.names if name not in second.norms]
    attributes = {
        **outside,
        "attention": own,
        "ffn": other,
        "checkpoint_ffn": stored[0] if stored != [other] else None,
        "attention_norms": first.norms,
        "ffn_norms": second.norms,
        "attention_returns": returns,
        "ffn_returns": returned,
        "attention_linears": calls.get("attention_mixins", {}).get("linears", DenseDescriptor.attention_linears),
    }
    base: type[DenseDescriptor] = DenseDescriptor
    if "num_local_experts" in second.sizes:
        base = SparseDescriptor
        attributes |= _experts(second.sizes, calls)
    else:
        attributes |= _dense(calls)
    attributes |= _kinds(base, inferred)
    plain = {name: value for name, value in attributes.items() if getattr(base, name, None) != value}
    return (base, plain) if _agree(base, plain, inferred) else None


def _outside(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the attributes for what is outside of the layers; None where it does not lie below one prefix."""
    prefix, _, layers = facts["layers_path"].rpartition(".")
    stored, _, stored_layers = facts["checkpoint_layers"].rpartition(".")
    paths = {"embedding": facts["embedding_path"], "final_norm": facts["final_norm_path"]}
    if stored_layers != layers or not all(path.startswith(f"{prefix}.") for path in paths.values()):
        return None
    heads = [name for name in facts["head_names"] if not name.startswith(f"{stored}.")]
    layer = facts["decoder_layer"]
    return {
        "decoder_layer": layer[0] if len(layer) == 1 else layer,
        "decoder_prefix": prefix,
        "layers": layers,
        **{name: path.removeprefix(f"{prefix}.") for name, path in paths.items()},
        "head": facts["head"],
        "checkpoint_prefix": stored if stored != prefix else None,
        "checkpoint_head": heads[0] if heads and heads[0] != facts["head"] else None,
        "text_config": facts["text_config"],
        "extra_groups": facts["extra_groups"],
    }


def _dense(calls: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = calls.get("ffn_mixins", {})
    return {
        "ffn_linears": own.get("linears", DenseDescriptor.ffn_linears),
        "fused_gate_up": own.get("fused_gate_up"),
    }


def _experts(sizes: Mapping[str, str], calls: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    fused = calls.get("fused_sparse_mixins")
    own = fused or calls.get("sparse_mixins", {})
    found = {
        "experts": sizes["num_local_experts"],
        "experts_per_token": sizes["num_experts_per_tok"],
        "expert_width": sizes["expert_intermediate_dim"],
        "router": own.get("router", SparseDescriptor.router),
    }
    if fused is not None:
        return found | {
            "fused_experts": own.get("gate_up", "halves"),
            "transposed_experts": own.get("transposed", False),
        }
    return found | {
        "expert_linears": own.get("linears", SparseDescriptor.expert_linears),
        "correction_bias": own.get("correction_bias") == f"{own.get('router')}.e_score_correction_bias",
        "expert_groups": own.get("groups"),
    }


def _kinds(base: type[DenseDescriptor], inferred: InferredFamily) -> dict[str, Any]:
    offered = {kind for call in inferred.mixins for kind in call.kinds}
    lacking: Mapping[str, str] = inferred.attributes["lacking"]
    known = [
        kind for kind in CAPABILITIES if kind in {*offered, *lacking} and kind in {*base.kinds, "ffn_intermediate"}
    ]
    return {
        "kinds": base.kinds if set(known) == set(base.kinds) else tuple(known),
        "not_implemented": {kind: lacking[kind] for kind in known if kind in lacking},
    }


def _agree(base: type[DenseDescriptor], attributes: Mapping[str, Any], inferred: InferredFamily) -> bool:
    """Say whether a class of these attributes does all that the inferred descriptor does."""
    made: type[Any] = type("Written", (base,), dict(attributes))
    mine, other = ModelFamily.from_descriptor(made(), model_type=inferred.model_type), inferred_model_family(inferred)
    tiny = TinyModel(inferred.tiny)
    try:
        same = _answers(mine, tiny) == _answers(other, tiny)
        if same:
            trial = Trial(mine, tiny)
            trial.no_op("attention")
            trial.no_op("ffn")
    except (AnyBlockError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    return same


def _answers(family: ModelFamily, tiny: TinyModel) -> tuple[Any, ...]:
    blocks = family.create_block_configs(tiny.config)
    patterns = family.layer_name_predicates(len(blocks), tiny.config)
    return (
        blocks,
        [family.block_config_to_layer_overrides(block) for block in blocks],
        [family.cache_spec(tiny.config, block, index) for index, block in enumerate(blocks)],
        {name: [group for group, pattern in patterns.items() if pattern.fullmatch(name)] for name in tiny.tensors},
        (family.input_embedding_name(), family.final_norm_name(), family.output_embedding_name()),
        (family.layer_block_name(0), set(family.decoder_layer_cls())),
        {kind: mixin.layer_descriptor for kind, mixin in family.pruning_mixins().items() if kind in CAPABILITIES},
        {name: bool(capability) for name, capability in family.capabilities().items()},
    )
