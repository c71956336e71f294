"""A child as transformers loads it, on a machine without AnyBlock."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar, Final

from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.remote_code import EXPORTED
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import block_configs_from_json
from anyblock.contract.export_format import Child, ExportFormat
from anyblock.contract.trust import CODE
from anyblock.errors import ConfigError, UnsupportedModelError
from anyblock.export.built_layers import built_layers
from anyblock.export.exported_child import ExportedChild, by_layer

_CODE: Final = (
    "modeling_anyblock.py",
    "layer_scope.py",
    "layer_config.py",
    "no_op.py",
    "lazy_zeros.py",
    "linear_half.py",
)
_OWN: Final = f"{EXPORTED}_own"
_AUTO: Final = ("AutoModelForCausalLM", "AutoModelForImageTextToText")


class TransformersFormat(ExportFormat):
    """A Hugging Face directory with the code that builds its layers; a stock one where all layers are alike.

    `anyblock_layers` in the configuration says for every layer what its constructor sees and which of its modules are
    no-ops or linear maps. `per_layer_config` says the same in transformers' own terms, so that a stock class, which does
    not build layers from it yet, refuses the checkpoint instead of filling it up with random weights.
    """

    summary: ClassVar[str] = "AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True), without AnyBlock"

    def obstacles(self, child: Child) -> list[str]:
        """See `ExportFormat.obstacles`: a class of transformers, and halves removed with core's own no-op modules."""
        if child.uniform_config() is not None:
            return []
        assert isinstance(child, ExportedChild)  # core's own format: it builds the child's layers
        try:
            built_layers(child.checkpoint, child.family)
        except UnsupportedModelError as error:
            return [error.what]
        return []

    def write(self, child: Child, directory: Path) -> None:
        """See `ExportFormat.write`."""
        uniform = child.uniform_config()
        if uniform is not None:
            child.write_directory(directory, config=uniform)
            return
        assert isinstance(child, ExportedChild)
        classes = _classes(child)
        child.write_directory(directory, config=_config(child, classes))
        from anyblock import modeling

        for name in _CODE:
            (directory / name).write_bytes((Path(modeling.__path__[0]) / name).read_bytes())
        if own := sorted({cls for cls in classes.values() if _home(cls) == _OWN}, key=lambda cls: cls.__name__):
            (directory / f"{_OWN}.py").write_text(_own_code(own), encoding="utf-8")


def describe_layers(config: Any) -> None:
    """Let a Hugging Face configuration with `block_configs` describe its layers as an exported one does.

    Raises:
        ConfigError: its block configs are malformed.
        UnsupportedModelError: no installed adapter serves the model, or it builds layers in another way.
    """
    from anyblock.family import get_family

    stated = config.to_dict()
    blocks = block_configs_from_json(stated.pop("block_configs"))
    child = ExportedChild(
        SubblockCheckpoint(Path(config.name_or_path), stated, blocks, {}), get_family(config.model_type)
    )
    for name, value in built_layers(child.checkpoint, child.family, config).items():
        setattr(config, name, value)
    config.get_text_config(decoder=True).per_layer_config = by_layer(_per_layer_config(child))


def _config(child: ExportedChild, classes: dict[str, type[Any]]) -> dict[str, Any]:
    config = copy.deepcopy(dict(child.config)) | built_layers(child.checkpoint, child.family)
    own = {auto: f"{_home(cls)}.{cls.__name__}" for auto, cls in classes.items()}
    config["auto_map"] = config.get("auto_map", {}) | own
    config["block_configs"] = [block.to_dict() for block in child.block_configs]
    child.text_part(config)["per_layer_config"] = by_layer(_per_layer_config(child))
    return config


def _classes(child: ExportedChild) -> dict[str, type[Any]]:
    """Return the stock classes by `Auto` class; the one without a head, if there is one, is what vLLM's backend builds."""
    from transformers import MODEL_MAPPING

    from anyblock.modeling.skeleton import load_hf_config, model_class

    config = load_hf_config(child.path)
    base = MODEL_MAPPING.get(type(config), None)
    return dict.fromkeys(_AUTO, model_class(config)) | ({"AutoModel": base} if isinstance(base, type) else {})


def _home(cls: type[Any]) -> str:
    return _OWN if cls.__module__.startswith(f"{CODE}.") else EXPORTED


def _own_code(classes: list[type[Any]]) -> str:
    """Return the module that gives layers of their own to the classes of the code that came with the checkpoint."""
    lines = ['"""The model\'s own classes, with layers as `anyblock_layers` in `config.json` describes them."""', ""]
    lines += [f"from .{EXPORTED} import with_own_layers"]
    for cls in classes:
        home = cls.__module__.split(".", 2)[2]
        lines += [f"from .{home} import {cls.__name__}", f"{cls.__name__} = with_own_layers({cls.__name__}, __name__)"]
    return "\n".join(lines) + "\n"


def _per_layer_config(child: ExportedChild) -> list[dict[str, Any]]:
    """Return the differences of every layer, with sizes of 1 for removed and linear halves, and without what transformers refuses.

    A stock class reads only sizes, and would build a removed half, were it not for them.
    """
    differences, family = child.layer_differences(), child.family
    whole = family.create_block_configs(child.view)
    for layer, block, unpruned in zip(differences, child.block_configs, whole, strict=True):
        removed = set(family.block_config_to_layer_overrides(unpruned))
        removed -= set(family.block_config_to_layer_overrides(block))
        gone = "skip" in layer or block.attention.replace_with_linear or block.ffn.replace_with_linear
        layer |= dict.fromkeys(sorted(removed), 1) if gone else {}
    try:
        trial = copy.deepcopy(dict(child.config))
        child.text_part(trial)["per_layer_config"] = by_layer(differences)
        config_view(trial).resolve()
    except (ConfigError, RuntimeError):  # the latter where a check of its own reads what layers differ in
        for layer in differences:
            layer.pop("num_attention_heads", None)
    return differences
