"""Structure: do the hooks answer, always the same, and without changing what they read?"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from anyblock.contract.capabilities import CAPABILITIES
from anyblock.contract.kinds import KINDS
from anyblock.contract.residual_pruning import HIDDEN_SIZE
from anyblock.contract.settings import Section
from anyblock.errors import AnyBlockError
from anyblock.modeling.skeleton import load_hf_config, model_class, shapes_of

from anyblock_conformance.check import check
from anyblock_conformance.expect import equal, nothing, that
from anyblock_conformance.kinds import smaller_sizes, works_on
from anyblock_conformance.subject import Subject

MAX_PARAMETERS = 20_000_000
_REQUIRED = ("init_rotary_embedding", "cache_spec", "conformance_config")


@check("structure.conformance-config", needs="tiny")
def check_conformance_config(subject: Subject) -> None:
    """`conformance_config` gives a tiny model of this family with at least two layers.

    Why: every other check runs on it. With one layer no one sees that an adapter mixes up layers, a large model makes the
    suite slow, and a model of another type tests another family.

    How to fix: return a configuration of the family's own class with two to eight layers, widths of some dozens, at
    least two key-value heads, and every optional tensor (biases, norms, experts) switched on.
    """
    config = subject.family.conformance_config()
    equal(config.model_type, subject.family.model_type, "its model_type")
    layers = subject.family.language_model_config(config).num_hidden_layers
    that(layers >= 2, f"it has num_hidden_layers={layers}, expected at least 2")
    count = sum(_elements(shape.sizes) for shape in subject.tensors.values())
    that(count <= MAX_PARAMETERS, f"the model has {count:,} parameters, expected at most {MAX_PARAMETERS:,}")


@check("structure.hooks", needs="headers")
def check_hooks(subject: Subject) -> None:
    """Every hook that core calls answers with a result of the agreed form.

    Why: a hook that is missing or returns something else fails in the middle of a run, perhaps after hours.

    How to fix: implement the hook that the message names as `FamilySpec` describes it, or derive the descriptor from a
    base in `anyblock.descriptors`, which answers most of them.
    """
    family = subject.family
    required = [*_REQUIRED]
    required += ["attn_no_op_post_init"] * family.supports("attention_no_op")
    required += ["mlp_no_op_post_init"] * family.supports("ffn_no_op")
    faults = [f"{hook} is not implemented" for hook in required if not family.implements(hook)]
    raised: list[AnyBlockError] = []
    calls: dict[str, Callable[[], Any]] = {
        "language_model_config": lambda: subject.text_config,
        "create_block_configs": lambda: subject.blocks,
        "layer_name_predicates": lambda: subject.patterns,
        "block_config_to_layer_overrides": lambda: [family.block_config_to_layer_overrides(b) for b in subject.blocks],
        "decoder_layer_cls": family.decoder_layer_cls,
        "input_embedding_name": family.input_embedding_name,
        "output_embedding_name": family.output_embedding_name,
        "final_norm_name": family.final_norm_name,
        "layer_block_name": lambda: family.layer_block_name(0),
        "requires_trust_remote_code": family.requires_trust_remote_code,
        "uses_autocast": family.uses_autocast,
        "dequantize": lambda: family.dequantize(list(subject.tensors), subject.view),
        "convert_weight_name": lambda: [family.convert_weight_name(name) for name in subject.tensors],
        "pruning_mixins": family.pruning_mixins,
        "residual_stream": family.residual_stream,
        "importance_hooks": family.importance_hooks,
        "export_formats": family.export_formats,
        "capabilities": family.capabilities,
    }
    for hook, call in calls.items():
        try:
            call()
        except AnyBlockError as error:
            faults.append(f"{hook}: {error.what}" + (f", expected: {error.expected}" if error.expected else ""))
            raised.append(error)
    nothing(faults, "hooks that do not answer", raised)


@check("structure.named-objects", needs="headers")
def check_named_objects(subject: Subject) -> None:
    """Everything that the adapter and the installed extensions add by name says what it is and has usable settings.

    Why: `anyblock list` shows the summary, the configuration page shows the settings, and a run that leaves a section out takes
    its defaults. A default that its own section refuses fails in the middle of a run.

    How to fix: give the class a one-line `summary` or docstring, derive `settings` from `anyblock.contract.settings.Section`,
    give every field a default and a `description`.
    """
    faults = []
    for kind in KINDS.values():
        for name, value in subject.family.named(kind.name).items():
            owner = value if isinstance(value, type) else type(value)
            text = getattr(value, "summary", "") or inspect.getdoc(owner) or ""
            if not isinstance(text, str) or not text.strip():
                faults.append(f"{kind.singular} {name!r} has no summary and no docstring")
            settings = getattr(value, "settings", None)
            if settings is None:
                continue
            if not isinstance(settings, type) or not issubclass(settings, Section):
                faults.append(
                    f"the settings of the {kind.singular} {name!r} are {settings!r}, not a subclass of Section"
                )
                continue
            undescribed = [field for field, info in settings.model_fields.items() if not info.description]
            if undescribed:
                faults.append(
                    f"settings of the {kind.singular} {name!r} without a description: {', '.join(undescribed)}"
                )
            try:
                settings.model_validate(settings().to_dict())
            except ValueError as error:
                faults.append(f"the default settings of the {kind.singular} {name!r} are refused: {error}")
    nothing(faults, "named objects that are not usable")


@check("structure.claims", needs="tiny")
def check_claims(subject: Subject) -> None:
    """What a declared capability needs is there: the mixin, the hook, and something to remove in the tiny model.

    Why: `inspect` and the search believe the declaration. A claim without anything behind it makes candidates that cannot
    be built, and a claim that the tiny model cannot show is never tested.

    How to fix: add the mixin to `pruning_mixins` under the capability's name (for `hidden_size` return something from
    `residual_stream`), give the tiny model two units at least, or declare the capability as `unsupported` (the
    architecture has no such thing) or `not implemented`.
    """
    faults = []
    hooks = {"attention_no_op": "attn_no_op_post_init", "ffn_no_op": "mlp_no_op_post_init"}
    for name, capability in subject.family.capabilities().items():
        if not capability or name in ("convert", "build", "search"):
            continue
        if name in hooks:
            if not subject.family.implements(hooks[name]):
                faults.append(f"{name} is declared as {capability.support}, but {hooks[name]} is not implemented")
        elif name == HIDDEN_SIZE:
            if subject.stream is None or len(subject.stream.legal_sizes(subject.text_config)) < 2:
                faults.append(f"{name} is declared as {capability.support}, but residual_stream gives no smaller size")
        elif name not in subject.mixins:
            known = ", ".join(subject.mixins) or "none"
            faults.append(
                f"{name} is declared as {capability.support}, but pruning_mixins gives no {name} (it gives {known})"
            )
        elif not any(smaller_sizes(subject, name, layer) for layer in works_on(subject, name)):
            faults.append(f"{name} is declared as {capability.support}, but no layer of the tiny model can lose a unit")
    for kind, mixin in subject.mixins.items():
        if mixin.kind != kind:
            faults.append(f"the mixin under {kind!r} says that its kind is {mixin.kind!r}")
    nothing(faults, f"claims without anything behind them ({len(CAPABILITIES)} capabilities)")


@check("structure.language-config", needs="headers", depends_on=["structure.conformance-config"])
def check_language_config(subject: Subject) -> None:
    """`language_model_config` returns the part of the configuration that describes this model's decoder.

    Why: sizes, costs and the logits' layout are computed from it. The outer configuration of a multimodal model, or a
    part of another size, gives wrong numbers without any error.

    How to fix: return the text configuration that the decoder is built from (`config.text_config`), or `config` itself.
    """
    embedding = subject.family.input_embedding_name() + ".weight"
    rows, stated = subject.stock_shapes.get(embedding, (None,))[0], subject.text_config.vocab_size
    # Some models have rows beyond the vocabulary (Moshi one, Mllama eight), which still grow with it.
    if rows is not None and not (rows > stated and _rows_with(subject, embedding, stated + 8) == rows + 8):
        equal(stated, rows, f"vocab_size of the text configuration (rows of {embedding})")
    equal(subject.text_config.num_hidden_layers, subject.num_layers, "num_hidden_layers of the text configuration")


@check("structure.config-view", needs="headers", depends_on=["structure.conformance-config"])
def check_config_view(subject: Subject) -> None:
    """Hooks answer the same for the view of `config.json` as for the Hugging Face configuration.

    Why: `convert` and `inspect` work without importing transformers and show hooks a read-only view with the same
    attributes. A hook that asks for the class of its argument converts one model and builds another.

    How to fix: read attributes only; use neither `isinstance` nor dictionary access on a configuration.
    """
    family, config, view = subject.family, subject.config, subject.view
    equal(family.create_block_configs(view), family.create_block_configs(config), "create_block_configs of the view")
    layers = subject.num_layers
    equal(
        family.layer_name_predicates(layers, view),
        family.layer_name_predicates(layers, config),
        "layer_name_predicates of the view",
    )
    names = list(subject.tensors)
    equal(family.dequantize(names, view), family.dequantize(names, config), "dequantize of the view")
    for index, block in enumerate(subject.blocks):
        equal(
            family.cache_spec(view, block, index),
            family.cache_spec(config, block, index),
            f"cache_spec of the view, layer {index}",
        )


@check("structure.pure-hooks", needs="headers", depends_on=["structure.conformance-config"])
def check_pure_hooks(subject: Subject) -> None:
    """Asking twice gives the same answer, and the configuration stays as it was.

    Why: core asks in any order and as often as it likes. A hook that changes the configuration it reads changes every
    later answer, and the `config.json` of the child.

    How to fix: copy what is to be changed; keep no state between calls.
    """
    family, config = subject.family, load_hf_config(subject.source)
    before = config.to_dict()
    for _ in range(2):
        blocks = family.create_block_configs(config)
        overrides = [family.block_config_to_layer_overrides(block) for block in blocks]
        caches = [family.cache_spec(config, block, index) for index, block in enumerate(blocks)]
        patterns = family.layer_name_predicates(len(blocks), config)
        family.language_model_config(config)
        after = config.to_dict()
        changed = [
            f"{key}: {before.get(key)!r} became {after.get(key)!r}"
            for key in {*before, *after}
            if before.get(key) != after.get(key)
        ]
        nothing(sorted(changed), "the configuration was changed by a hook that reads it")
        answers = (blocks, overrides, caches, patterns)
        if _ == 0:
            first = answers
    equal(answers[0], first[0], "create_block_configs, asked again,")
    equal(answers[1], first[1], "block_config_to_layer_overrides, asked again,")
    equal(answers[2], first[2], "cache_spec, asked again,")
    equal(answers[3], first[3], "layer_name_predicates, asked again,")


def _elements(sizes: tuple[int, ...] | None) -> int:
    count = 1
    for size in sizes or ():
        count *= size
    return count


def _rows_with(subject: Subject, embedding: str, vocabulary: int) -> int | None:
    """Return the rows of the embedding in a model whose text configuration states another vocabulary; None without one."""
    config = copy.deepcopy(subject.config)
    try:
        subject.family.language_model_config(config).vocab_size = vocabulary
        with torch.device("meta"):
            return shapes_of(model_class(config)._from_config(config))[embedding][0]
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return None
