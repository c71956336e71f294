"""Structure: do module paths and classes name what they should in the model that transformers builds?"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from anyblock.modeling.layer_scope import find_layer_index
from anyblock.modeling.skeleton import model_class

from anyblock_conformance.check import check
from anyblock_conformance.expect import equal, fail, nothing
from anyblock_conformance.subject import Subject


@check("structure.module-paths", needs="headers", depends_on=["structure.conformance-config"])
def check_module_paths(subject: Subject) -> None:
    """The hooks' module paths name the input embedding, every decoder layer, the final norm and the output head.

    Why: the layer-wise engine, importance hooks and exporters find modules by these paths.

    How to fix: print the model (`print(model)`) and give the paths that lead to these modules, without `.weight`; set
    `decoder_prefix`, `embedding`, `layers`, `final_norm` and `head` of the descriptor base.
    """
    model, family = meta_model(subject), subject.family
    embedding = _module(model, family.input_embedding_name(), "input_embedding_name")
    if embedding is not model.get_input_embeddings():
        fail(f"input_embedding_name leads to {type(embedding).__name__}, which is not model.get_input_embeddings()")
    head = _module(model, family.output_embedding_name(), "output_embedding_name")
    own = model.get_output_embeddings()
    if own is not None and head is not own:
        fail(f"output_embedding_name leads to {type(head).__name__}, which is not model.get_output_embeddings()")
    if family.final_norm_name():
        _module(model, family.final_norm_name(), "final_norm_name")
    paths = [family.layer_block_name(index) for index in range(subject.num_layers)]
    layers = [_module(model, path, "layer_block_name") for path in paths]
    equal(
        len({id(layer) for layer in layers}),
        subject.num_layers,
        "the number of different modules that layer_block_name names",
    )


@check("structure.decoder-layers", needs="headers", depends_on=["structure.module-paths"])
def check_decoder_layers(subject: Subject) -> None:
    """`decoder_layer_cls` names the class of every decoder layer and of nothing else; all take a layer index, or none.

    Why: core hands every object of these classes the configuration of its own layer while the model is built.

    How to fix: set `decoder_layer` of the descriptor base to the dotted path of the class that `type(model.get_submodule(
    layer_block_name(0)))` shows; name each class where layers differ.
    """
    model, family = meta_model(subject), subject.family
    classes = family.decoder_layer_cls()
    names = ", ".join(cls.__name__ for cls in classes)
    paths = {family.layer_block_name(index) for index in range(subject.num_layers)}
    faults = []
    for path in sorted(paths):
        layer = model.get_submodule(path)
        if type(layer) not in classes:
            faults.append(f"{path} is a {type(layer).__name__}, and decoder_layer_cls names {names}")
    faults += [
        f"{path} is a {type(module).__name__} as well, but is not a decoder layer"
        for path, module in model.named_modules()
        if type(module) in classes and path not in paths
    ]
    numbered = {cls.__name__: _takes_an_index(cls) for cls in classes}
    if len(set(numbered.values())) > 1:
        faults.append(f"constructors of some classes take a layer index, and others do not: {numbered}")
    nothing(faults, "decoder layers")


def meta_model(subject: Subject) -> Any:
    """Return the model as transformers builds it, on the meta device."""
    with torch.device("meta"):
        return model_class(subject.config)._from_config(copy.deepcopy(subject.config))


def _takes_an_index(cls: type[torch.nn.Module]) -> bool:
    parameters = inspect.signature(cls.__init__).parameters
    return find_layer_index(dict.fromkeys(parameters, 0)) is not None


def _module(model: Any, path: str, hook: str) -> torch.nn.Module:
    try:
        return model.get_submodule(path)  # type: ignore[no-any-return]
    except AttributeError:
        fail(f"{hook} gives {path!r}, and the model has no such module")
