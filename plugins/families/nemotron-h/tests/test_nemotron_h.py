"""What is special about Nemotron-H: patterns of layers, a state of fixed size, and its router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config.registry import NameRegistry
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.importance_hook import HookContext
from anyblock.errors import CheckpointError
from anyblock.importance.expert_removal import MoERemoveExpertsHook
from anyblock.modeling.skeleton import model_class
from anyblock_conformance.decoding import real_cache
from anyblock_conformance.tiny import randomise, save_tiny
from safetensors.torch import load_file, save_file

IDS = torch.arange(12).reshape(1, 12)


def kinds(blocks: list[BlockConfig]) -> str:
    """A block config's layer as a letter of the pattern."""
    letters = []
    for block in blocks:
        here = {
            "M": block.attention.mamba is not None,
            "*": block.attention.num_key_value_heads is not None,
            "-": block.ffn.intermediate_size is not None,
            "E": block.ffn.moe is not None,
        }
        (letter,) = [letter for letter, found in here.items() if found]
        assert block.attention.no_op is (letter in "-E")
        assert block.ffn.no_op is (letter in "M*")
        letters.append(letter)
    return "".join(letters)


@pytest.mark.parametrize(
    "stated",
    [
        {"hybrid_override_pattern": "M-M*E"},
        {"hybrid_override_pattern": "M-M*E", "num_hidden_layers": 5},
        {"layers_block_type": ["mamba", "mlp", "mamba", "attention", "moe"]},
        {"layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention", "moe"]},
    ],
)
def test_every_way_of_writing_the_order_of_layers(stated: dict[str, Any], tmp_path: Path) -> None:
    family = get_family("nemotron_h")
    data = family.conformance_config().to_dict()
    for key in ("layers_block_type", "layer_types", "num_hidden_layers", "hybrid_override_pattern"):
        data.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps({**data, **stated}))
    view = config_view(tmp_path)
    assert kinds(family.create_block_configs(view)) == "M-M*E"
    groups = family.layer_name_predicates(5, view)
    names = {group for group in groups if group.startswith("block_")}
    assert names == {"block_0_attention", "block_1_ffn", "block_2_attention", "block_3_attention", "block_4_ffn"}


def test_what_predicts_further_tokens_is_kept_and_not_loaded(tmp_path: Path) -> None:
    source = save_tiny(get_family("nemotron_h").conformance_config(), tmp_path / "source")
    stock = load_model(source)(IDS).logits
    tensors = load_file(source / "model.safetensors") | {"mtp.layers.0.norm.weight": torch.ones(32)}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    converted = SubblockCheckpoint.open(convert_model(source, tmp_path / "teacher"))
    assert converted.groups["multi_token_prediction"] == ("mtp.layers.0.norm.weight",)
    for options in ({}, {"attn_implementation": "eager"}):
        torch.testing.assert_close(load_model(converted.path, **options)(IDS).logits, stock)


@pytest.fixture(scope="module")
def model() -> Any:
    config = get_family("nemotron_h").conformance_config()
    made = model_class(config)._from_config(config, dtype=torch.float32).eval()
    randomise(made)
    return made


def test_the_cache_is_counted_to_the_byte(model: Any) -> None:
    import copy

    family, half = get_family("nemotron_h"), copy.deepcopy(model).to(torch.bfloat16)
    blocks = family.create_block_configs(model.config)
    for length in (2, 12):
        cache = real_cache(half, IDS[:, :length].expand(3, -1))
        for index, (block, layer) in enumerate(zip(blocks, cache.layers, strict=True)):
            tensors = [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
            tensors += [getattr(layer, name, None) for name in ("keys", "values")]
            held = sum(tensor.nbytes for tensor in tensors if tensor is not None)
            assert held == 3 * family.cache_spec(model.config, block, index).bytes(length, 2)


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_its_own_hook_for_experts_agrees_with_the_one_that_runs_the_model(model: Any, metric: str) -> None:
    family = get_family("nemotron_h")
    moe = model.model.layers[1].mixer
    context = HookContext(model.config, family.create_block_configs(model.config)[1], 1, 2)
    name = "NemotronHRemoveExpertsIndependentHook"
    own = family.importance_hooks()[name](moe, context, metric=metric)
    generic = MoERemoveExpertsHook(moe, context, metric=metric)
    for seed in range(2):
        x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(seed))
        for hook in (own, generic):
            hook(moe, (x,), {}, moe(x))
    assert own.scores().count_nonzero() >= 4
    torch.testing.assert_close(own.scores(), generic.scores(), rtol=1e-4, atol=1e-6)
    assert NameRegistry.for_family(family).hook(name) == name


def test_a_removed_norm_follows_the_models_type(model: Any, tmp_path: Path) -> None:
    """The layer asks its norm for a type; hidden states stay in the model's own, also after a change."""
    from anyblock.modeling.heterogeneous import heterogeneous

    family = get_family("nemotron_h")
    blocks = family.create_block_configs(model.config)
    blocks[0] = blocks[0].with_attention(no_op=True)
    with heterogeneous(family, blocks):
        child = model_class(model.config)._from_config(model.config, dtype=torch.float32).eval()
    child.load_state_dict({name: model.state_dict()[name] for name in child.state_dict()})
    found = child.to(torch.bfloat16)(IDS, output_hidden_states=True).hidden_states
    assert {hidden.dtype for hidden in found} == {torch.bfloat16}


def modelopts(blocks: list[BlockConfig]) -> list[Any]:
    """Block configs as ModelOpt's descriptor for `nemotron_h` writes them: it does not know the shared expert's width."""
    common = {"replace_with_linear": False, "sparsify": None, "weights_precision": "bf16"}
    written = [block.to_dict() for block in blocks]
    for block in written:
        block["parallel_blocks"] = None
        block["attention"] |= common | {"llama4": None}
        block["ffn"] |= common
        if block["ffn"]["moe"]:
            block["ffn"]["moe"]["shared_expert_intermediate_dim"] = 8192
    return written


@pytest.mark.parametrize("experts", [6, 4])
def test_what_modelopt_writes_of_expert_layers_is_read(experts: int, tmp_path: Path) -> None:
    """Its conversion, and a child of it with fewer experts."""
    family = get_family("nemotron_h")
    config = family.conformance_config()
    config.n_routed_experts = experts
    path = convert_model(save_tiny(config, tmp_path / "source"), tmp_path / "model")
    expected, blocks = load_model(path)(IDS).logits, SubblockCheckpoint.open(path).block_configs
    data = json.loads((path / "config.json").read_text())
    data |= {"n_routed_experts": 6, "block_configs": modelopts(blocks)}
    (path / "config.json").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="shared_expert_intermediate_dim is 24 and not 8192 in layer 1"):
        assert torch.equal(load_model(path)(IDS).logits, expected)
    again = convert_model(path, tmp_path / "again")
    assert SubblockCheckpoint.open(again).block_configs == blocks


def test_sizes_of_which_tensors_show_the_product_only_are_refused(tmp_path: Path) -> None:
    """Two groups of 16 states or four of 8 have tensors of the same shapes."""
    source = save_tiny(get_family("nemotron_h").conformance_config(), tmp_path / "source")
    path = convert_model(source, tmp_path / "model")
    data = json.loads((path / "config.json").read_text())
    data["block_configs"][0]["attention"]["mamba"]["state_dim"] *= 2
    (path / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="conv1d"):
        load_model(path)
