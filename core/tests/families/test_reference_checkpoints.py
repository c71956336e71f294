"""What the reference writes is read: all of its conversions and children that are kept, and block configs with its defaults."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import BlockConfig
from anyblock.costs.cost_model import Scenario
from anyblock.extensions import installed_plugins
from anyblock.modeling.skeleton import load_hf_config, model_class
from anyblock.pipeline.inspection import inspect_model
from safetensors.torch import load_file, save_file

FAMILIES = [name for name in installed_plugins().model_types if name != "example"]
GOLDEN = ["gpt_oss/fp32", "llama/fp32", "qwen3/bf16"]
DEFAULT = 8192
IDS = torch.arange(3, 19).reshape(2, 8)
Tensors = Mapping[str, torch.Tensor]


def write(folder: Path, config: Any, weight_map: Mapping[str, str], tensors: Tensors) -> Path:
    """Write a checkpoint in the reference's layout."""
    for file in set(weight_map.values()):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensors[name] for name in weight_map if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def kept(golden: Path) -> Iterator[tuple[str, Any, dict[str, str], Tensors]]:
    """Every conversion and child of a family: `(name, config, weight map, tensors)`."""
    parent = load_file(golden / "parent.safetensors")
    converted = json.loads((golden / "converted.json").read_text())
    yield "converted", converted["config"], converted["index"]["weight_map"], parent
    for name, child in json.loads((golden / "children.json").read_text()).items():
        if "error" not in child:
            config = converted["config"] | {key: child[key] for key in ("block_configs", "hidden_size")}
            yield name, config, child["weight_map"], parent | load_file(golden / f"child_{name}.safetensors")


def stock_logits(folder: Path, config: Any, tensors: Tensors) -> torch.Tensor | None:
    """What transformers alone computes of a child whose layers are all alike; None of any other."""
    block = BlockConfig.from_dict(config["block_configs"][0])
    if any(BlockConfig.from_dict(other) != block for other in config["block_configs"]):
        return None
    own = load_hf_config(folder)
    own.num_key_value_heads = block.attention.num_key_value_heads
    if block.ffn.moe is None:
        own.intermediate_size = block.ffn.intermediate_size
    else:
        own.num_local_experts = block.ffn.moe.num_local_experts
    model = model_class(own)._from_config(own, dtype=own.dtype).eval()
    model.load_state_dict(dict(tensors))
    return model(IDS).logits  # type: ignore[no-any-return]


@pytest.mark.shared
@torch.no_grad()
@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.filterwarnings("ignore:.*shared_expert_intermediate_dim is absent")
def test_every_conversion_and_child_is_read(name: str, shared_dir: Path, tmp_path: Path) -> None:
    """Bit for bit, with the logits of the stock model where that can be built, and converted again."""
    golden, compared = shared_dir / "golden" / "families" / name, 0
    for label, config, weight_map, tensors in kept(golden):
        folder = write(tmp_path / label, config, weight_map, tensors)
        model = load_model(folder)
        assert model.state_dict().keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in model.state_dict().items())
        logits, expected = model(IDS).logits, stock_logits(folder, config, tensors)
        if expected is not None:
            compared += 1
            assert torch.equal(logits, expected), label
        inspected = inspect_model(folder, Scenario())
        again = SubblockCheckpoint.open(convert_model(folder, tmp_path / f"{label}-again"))
        assert again.block_configs == inspected.block_configs
        assert DEFAULT not in [getattr(b.ffn.moe, "shared_expert_intermediate_dim", None) for b in again.block_configs]
        assert torch.equal(load_model(again.path)(IDS).logits, logits)
    assert compared > 5


@pytest.mark.shared
def test_no_family_of_the_reference_is_left_out(shared_dir: Path) -> None:
    """Every folder of conversions that is kept is read above."""
    families = shared_dir / "golden" / "families"
    assert sorted(str(path.parent.relative_to(families)) for path in families.glob("*/*/converted.json")) == GOLDEN


@pytest.mark.shared
def test_the_children_of_a_whole_run_are_read(shared_dir: Path, tmp_path: Path) -> None:
    """The realised children of its search, made from the weights that are kept, are those whose checksums it wrote."""
    golden = shared_dir / "golden" / "e2e_mini" / "llama_ffn" / "fp32"
    config, found = json.loads((golden / "teacher_config.json").read_text()), 0
    for label, result in json.loads((golden / "mip.json").read_text()).items():
        for number, child in result["checkpoints"].items():
            weight_map, own = child["index"]["weight_map"], config | {"block_configs": child["block_configs"]}
            tensors: dict[str, torch.Tensor] = {}
            for file in ("hf_model", "pruned_ffn_64_attn_no_op", "pruned_ffn_32_attn_no_op"):
                for name, tensor in load_file(golden / f"{file}.safetensors").items():
                    if child["shapes_dtypes"].get(name, [None])[0] == list(tensor.shape):
                        tensors[name] = tensor.float()
            model = load_model(write(tmp_path / label / number, own, weight_map, tensors), dtype="float32")
            assert model.state_dict().keys() == weight_map.keys()
            for name, tensor in model.state_dict().items():
                assert hashlib.sha256(tensor.numpy().tobytes()).hexdigest() == child["sha256"][name], name
            assert model(IDS).logits.isfinite().all()
            found += 1
    assert found == 3


# -- what a size is, is for the tensors to say -----------------------------------------------------------------------


def sizes(part: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """The places of all sizes in a block config's JSON that tensors show."""
    for name, value in part.items():
        if isinstance(value, dict):
            yield from sizes(value, (*place, name))
        elif type(value) is int and name != "num_experts_per_tok":
            yield (*place, name), value


def state(path: Path, blocks: list[Any], place: tuple[str, ...], value: Any) -> None:
    """Have `config.json` state another value at this place of every block that has it."""
    changed = json.loads(json.dumps(blocks))
    for block in changed:
        part = block
        for name in place[:-1]:
            part = part[name] or {}
        if part.get(place[-1], 0) is not None and (part or place[-2] != "moe"):
            part[place[-1]] = value
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"block_configs": changed}))


ONE_ATTRIBUTE = {"llama4": "expert_intermediate_dim", "llama4_text": "expert_intermediate_dim"}
"""A size whose attribute of the configuration gives another one too, which decides about the layer's shape."""


@torch.no_grad()
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_size_that_contradicts_the_tensors_is_what_they_say(
    model_type: str, tiny_teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every size in turn, stated as the reference's default in all layers."""
    path = shutil.copytree(tiny_teacher(model_type), tmp_path / "model")
    blocks, expected = json.loads((path / "config.json").read_text())["block_configs"], load_model(path)(IDS).logits
    places = dict(place for block in blocks for place in sizes(block) if place[0][-1] != ONE_ATTRIBUTE.get(model_type))
    assert places
    for place in places:
        state(path, blocks, place, DEFAULT)
        with pytest.warns(UserWarning, match=rf"believed: .*{place[-1]} is \d+ and not {DEFAULT} in layer"):
            model, inspected = load_model(path), inspect_model(path, Scenario())
        assert torch.equal(model(IDS).logits, expected), place
        assert [block.to_dict() for block in inspected.block_configs] == blocks


@pytest.mark.parametrize("model_type", ["mixtral", "olmoe", "qwen3_moe", "qwen3_vl_moe"])
def test_a_shared_expert_that_the_model_lacks_is_none(
    model_type: str, tiny_teacher: Callable[[str], Path], tmp_path: Path
) -> None:
    """As the reference writes it for every model with experts of which it does not know better, Qwen3-VL for instance."""
    path = shutil.copytree(tiny_teacher(model_type), tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    right = json.loads(json.dumps(config["block_configs"]))
    for block in config["block_configs"]:
        if block["ffn"]["moe"]:
            block["ffn"]["moe"]["shared_expert_intermediate_dim"] = DEFAULT
    (path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="shared_expert_intermediate_dim is absent and not 8192"):
        inspected = inspect_model(path, Scenario())
    assert [block.to_dict() for block in inspected.block_configs] == right
