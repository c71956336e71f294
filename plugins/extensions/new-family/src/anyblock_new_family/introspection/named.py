"""From what a user names to a `model_type`, and to the family that is inferred from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyblock.checkpoint.classify import classify
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.hub import config_path
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.contract.capabilities import CAPABILITIES
from anyblock.errors import CheckpointError
from anyblock.modeling.skeleton import load_hf_config

from anyblock_new_family.introspection.descriptor import inferred_model_family
from anyblock_new_family.introspection.facts import InferredFamily
from anyblock_new_family.introspection.infer import config_class_of, infer_family


def infer_named(model: str) -> InferredFamily:
    """Infer a family from what a user names: from its own configuration where that is at hand (see `infer_family`).

    Where a checkpoint has tensors that belong to no group, what is found says so and does not claim to convert it.

    Raises:
        ConfigError: the file cannot be used.
        InputError: the hub does not have it, does not give it or cannot be reached.
        UnsupportedModelError: see `infer_family`.
    """
    path = config_path(model)
    if path is None:
        return infer_family(model)
    model_type = str(read_config(path)["model_type"])
    config_class_of(model_type)  # says what is near it; transformers' own error, with the file, does not
    config = load_hf_config(path)
    inferred = infer_family(model_type, config)
    has_weights = path.is_dir() and any(path.glob("*.safetensors"))
    return _held_to(inferred, path, config) if has_weights else inferred


def _held_to(inferred: InferredFamily, checkpoint: Path, config: Any) -> InferredFamily:
    """Compare the groups with the names of the tensors that a checkpoint really has."""
    family = inferred_model_family(inferred)
    try:
        names = [family.convert_weight_name(name) for name in SourceCheckpoint.open(checkpoint).tensors]
        patterns = family.layer_name_predicates(len(family.create_block_configs(config)), config)
        classify([name for name in names if name is not None], patterns, family=family.model_type)
    except CheckpointError as error:
        return inferred.without(dict.fromkeys(CAPABILITIES, f"{checkpoint.name}: {' '.join(error.what.split())[:200]}"))
    return inferred
