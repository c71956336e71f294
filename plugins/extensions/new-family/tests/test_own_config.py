"""A checkpoint's own configuration decides what is looked at, and not only its `model_type`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anyblock.family import get_family, inferring_families
from anyblock_new_family.introspection import infer_named
from anyblock_new_family.introspection.tiny import own_structure, shrunken
from anyblock_new_family.source import descriptor_source
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def write(folder: Path, model_type: str, **values: object) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **HEADS, **values})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense layers among sparse ones, tied embeddings, 8 experts: the class's defaults have neither."""
    experts = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "mlp_only_layers": [1, 2]}
    folder = tmp_path_factory.mktemp("own") / "mixed"
    return write(folder, "qwen3_moe", tie_word_embeddings=True, **experts)


def test_layers_and_switches_are_those_of_the_checkpoint(mixed: Path) -> None:
    inferred = infer_named(str(mixed))
    assert len(inferred.kinds("ffn")) == 2
    assert {next(iter(kind.sizes)) for kind in inferred.kinds("ffn").values()} == {
        "num_local_experts",
        "intermediate_size",
    }
    config = inferred.tiny.make()
    assert (config.tie_word_embeddings, config.mlp_only_layers) == (True, [1])
    assert inferred.attributes["checkpoint_head"] is None
    assert "mlp_only_layers=[1]" in descriptor_source(inferred)
    assert len(infer_named("qwen3_moe").kinds("ffn")) == 1


def test_the_family_of_a_path_groups_every_tensor_of_the_checkpoint(mixed: Path) -> None:
    notes: list[str] = []
    with inferring_families(notes.append) as scope:
        scope.models["arcee"] = str(mixed)
        assert get_family("arcee").model_type == "qwen3_moe"  # what is named is looked at
    family, config = get_family(f"auto:{mixed}"), AutoConfig.from_pretrained(mixed)
    assert [block.ffn.moe is None for block in family.create_block_configs(config)] == [False, True, True, False]
    patterns = family.layer_name_predicates(4, config)
    for name in load_file(mixed / "model.safetensors"):
        assert len([group for group, pattern in patterns.items() if pattern.fullmatch(name)]) == 1


def test_tensors_that_tiny_models_do_not_have_are_said_and_nothing_is_claimed(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((mixed / "config.json").read_bytes())
    tensors = load_file(mixed / "model.safetensors") | {"model.layers.0.adapter.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    not_implemented = infer_named(str(tmp_path)).attributes["not_implemented"]
    assert "model.layers.0.adapter.weight" in not_implemented["convert"]
    assert {"build", "ffn_no_op", "kv_heads"} <= not_implemented.keys()


def test_what_a_configuration_has_none_of_stays_so() -> None:
    config = AutoConfig.for_model("granitemoehybrid", **SIZES, num_local_experts=0, layer_types=["attention"] * 4)
    own = own_structure(config, shrunken(config))
    assert own["num_local_experts"] == 0
    assert own["layer_types"] == ["full_attention"] * 2
    assert own["hidden_size"] == 32
