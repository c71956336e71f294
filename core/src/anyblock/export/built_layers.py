"""What `modeling_anyblock` reads of every layer, found in the model that an adapter builds, and checked against it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from anyblock.contract.trust import CODE
from anyblock.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import nn

    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.family import ModelFamily


def built_layers(child: SubblockCheckpoint, family: ModelFamily, config: Any = None) -> dict[str, Any]:
    """Return the entries of an exported `config.json` from which `modeling_anyblock` builds the child's layers.

    They are `architectures`, `anyblock_layer_classes` and `anyblock_layers`. A model is built from them and compared with
    the one that the adapter builds, module by module: what the entries cannot say is refused here.

    Args:
        child: the child.
        family: its adapter.
        config: its Hugging Face configuration; None reads it.

    Raises:
        UnsupportedModelError: the adapter builds layers in another way than `modeling_anyblock` can.
    """
    import sys

    import transformers

    from anyblock.modeling.skeleton import build_skeleton, differs_by_itself, load_hf_config

    config = config or load_hf_config(child.path)
    if differs_by_itself(config.get_text_config(decoder=True)):
        raise UnsupportedModelError(
            "transformers asks that layers of one type be alike where layers of the unpruned model differ by their types",
            hint="anyblock.load_model loads the child as it is",
        )
    model = build_skeleton(family, config, child.block_configs)
    stock = type(model)
    if getattr(transformers, stock.__name__, None) is not stock and not stock.__module__.startswith(f"{CODE}."):
        raise UnsupportedModelError(
            f"{stock.__name__} is not a class of transformers, and not of the checkpoint's code"
        )
    for cls in family.decoder_layer_cls():
        if getattr(sys.modules[stock.__module__], cls.__name__, None) is not cls:
            raise UnsupportedModelError(f"{cls.__name__} is not in {stock.__module__}")
    entries = {
        "architectures": [stock.__name__],
        "anyblock_layer_classes": [cls.__name__ for cls in family.decoder_layer_cls()],
        "anyblock_layers": [
            {
                "config": dict(family.block_config_to_layer_overrides(block)),
                "no_ops": _no_ops(model.get_submodule(family.layer_block_name(index))),
            }
            for index, block in enumerate(child.block_configs)
        ],
    }
    exported = _as_exported(config, stock, entries)
    for index in range(len(child.block_configs)):
        name = family.layer_block_name(index)
        _compare(name, model.get_submodule(name), exported.get_submodule(name))
    return entries


def _no_ops(layer: nn.Module) -> dict[str, dict[str, Any]]:
    from anyblock.modeling.linear_half import STAND_INS, options_of

    kinds = {cls: kind for kind, cls in STAND_INS.items()}
    return {
        name: {"kind": kinds[type(module)], **options_of(module)}
        for name, module in layer.named_modules()
        if type(module) in kinds
    }


def _as_exported(config: Any, stock: type[Any], entries: dict[str, Any]) -> Any:
    import torch

    from anyblock.modeling.modeling_anyblock import with_own_layers
    from anyblock.modeling.skeleton import refusing

    own = copy.deepcopy(config)
    own.anyblock_layer_classes, own.anyblock_layers = entries["anyblock_layer_classes"], entries["anyblock_layers"]
    with refusing("the exported configuration"), torch.device("meta"):
        return with_own_layers(stock, __name__)._from_config(own).eval()


def _compare(layer: str, adapters: nn.Module, exported: nn.Module) -> None:
    wanted, found = _structure(adapters), _structure(exported)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            cls = type(adapters.get_submodule(name)).__name__ if name in wanted else "nothing"
            raise UnsupportedModelError(
                f"the adapter has {cls} at {layer}.{name}, which the code that goes along has not"
            )


def _structure(layer: nn.Module) -> dict[str, Any]:
    """Return by path the class of every module, the shapes of its tensors, and the plain values that it was built with."""
    return {
        name: (
            type(module),
            {key: tuple(value.shape) for key, value in module.named_parameters(recurse=False)},
            {key: tuple(value.shape) for key, value in module.named_buffers(recurse=False)},
            {
                key: value
                for key, value in vars(module).items()
                if isinstance(value, int | float | str) and not key.startswith("_")
            },
        )
        for name, module in layer.named_modules()
    }
