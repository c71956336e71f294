"""Block configs that contradict the tensors: what the tensors decide is believed, and anything else is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, load_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import block_configs_from_json
from anyblock.costs.cost_model import Scenario
from anyblock.errors import CheckpointError
from anyblock.export.export import export_child
from anyblock.pipeline.inspection import inspect_model
from safetensors.torch import load_file, save_file

Change = Callable[[list[Any]], None]


@pytest.fixture
def model(teacher_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher_dir, tmp_path / "model"))


def state(folder: Path, change: Change) -> list[Any]:
    """Have `config.json` state other block configs; return what it said before."""
    config = json.loads((folder / "config.json").read_text())
    before = json.loads((folder / "config.json").read_text())["block_configs"]
    change(config["block_configs"])
    (folder / "config.json").write_text(json.dumps(config))
    return before  # type: ignore[no-any-return]


def narrow(tensors: dict[str, torch.Tensor], *parts: str) -> None:
    for name in tensors:
        if any(part in name for part in parts):
            dim = 1 if "down_proj.weight" in name else 0
            tensors[name] = tensors[name].narrow(dim, 0, tensors[name].shape[dim] - 8).contiguous()


class Notes(list[str]):
    """A `Progress` that keeps what it is told in a sentence."""

    def task(self, description: str, *, total: int, unit: str) -> AbstractContextManager[Any]:
        return nullcontext(lambda _: None)

    def note(self, message: str) -> None:
        self.append(message)


def wider_ffn(blocks: list[Any]) -> None:
    blocks[1]["ffn"]["intermediate_size"] = 8192


def fewer_heads(blocks: list[Any]) -> None:
    blocks[0]["attention"]["num_key_value_heads"] = 1


def both(blocks: list[Any]) -> None:
    wider_ffn(blocks)
    fewer_heads(blocks)
    blocks[0]["ffn"]["intermediate_size"] = 49


@pytest.mark.parametrize("change", [wider_ffn, fewer_heads, both])
def test_sizes_are_those_of_the_tensors(model: Path, teacher_dir: Path, ids: torch.Tensor, change: Change) -> None:
    """Whoever opens it: `load_model`, also through `from_pretrained`, `inspect`, `convert` and `export`."""
    right = block_configs_from_json(state(model, change))
    expected = load_model(teacher_dir)(ids).logits
    with pytest.warns(UserWarning, match=r"(?s)model: block_configs contradict the tensors.*believed: .* in layer \d"):
        assert torch.equal(load_model(model)(ids).logits, expected)
    with pytest.warns(UserWarning, match="believed"):
        assert torch.equal(load_model(model, attn_implementation="sdpa")(ids).logits, expected)
    with pytest.warns(UserWarning, match="believed"):
        inspected = inspect_model(model, Scenario())
    assert inspected.block_configs == right
    assert inspected.costs == inspect_model(teacher_dir, Scenario()).costs
    again = convert_model(model, model.with_name("again"), progress=(heard := Notes()))
    assert ["believed" in note for note in heard] == [True]
    assert SubblockCheckpoint.open(again).block_configs == right
    with pytest.warns(UserWarning, match="believed"):
        exported = export_child(model, model.with_name("exported"), "transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(load_model(exported)(ids).logits, expected)
        assert torch.equal(load_model(again)(ids).logits, expected)


def test_the_note_names_every_size_once_with_its_layers(model: Path) -> None:
    def everywhere(blocks: list[Any]) -> None:
        for block in blocks:
            block["ffn"]["intermediate_size"] = 8192

    state(model, everywhere)
    with pytest.warns(UserWarning, match="believed") as said:
        load_model(model)
    (message,) = [str(warning.message) for warning in said if "believed" in str(warning.message)]
    assert message.endswith("believed: ffn.intermediate_size is 48 and not 8192 in layers 0, 1, 2")


def test_a_child_has_its_own_sizes(trained_child: Path) -> None:
    """Layers of many shapes, with halves that are gone: nothing is said of a child that is right, and a wrong size is found."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = load_model(trained_child)
    model = Path(shutil.copytree(trained_child, trained_child.with_name("contradicted")))

    def wrong(blocks: list[Any]) -> None:
        blocks[4]["ffn"]["intermediate_size"] += 1

    state(model, wrong)
    with pytest.warns(UserWarning, match=r"in layer 4$"):
        found = load_model(model)
    assert all(torch.equal(tensor, right.state_dict()[name]) for name, tensor in found.state_dict().items())


def test_an_ordinary_checkpoint_with_block_configs_is_read_alike(
    llama_dir: Path, teacher_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    folder = Path(shutil.copytree(llama_dir, tmp_path / "plain"))
    shutil.copy(teacher_dir / "config.json", folder)
    state(folder, both)
    with pytest.warns(UserWarning, match="believed"):
        assert torch.equal(load_model(folder)(ids).logits, load_model(llama_dir)(ids).logits)


def no_op(blocks: list[Any]) -> None:
    blocks[1]["ffn"] = {"no_op": True}


def sparse(blocks: list[Any]) -> None:
    moe = {"num_local_experts": 4, "num_experts_per_tok": 2, "expert_intermediate_dim": 48}
    blocks[1]["ffn"] = {"no_op": False, "intermediate_size": None, "moe": moe}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_op, r"block_1_ffn, whose block config says no_op"),
        (sparse, r"block_configs\[1\]\.ffn says experts, and in this model it is dense"),
    ],
)
def test_another_architecture_is_refused(model: Path, change: Change, message: str) -> None:
    state(model, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(model)
    with pytest.raises(CheckpointError, match=message):
        convert_model(model, model.with_name("again"))


def test_a_missing_half_that_is_no_no_op_is_refused(trained_child: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained_child, tmp_path / "model"))

    def there(blocks: list[Any]) -> None:
        blocks[1]["ffn"] = {"no_op": False, "intermediate_size": 48}

    state(model, there)
    with pytest.raises(CheckpointError, match="no tensors of block_1_ffn"):
        load_model(model)


def test_tensors_that_contradict_one_another_decide_nothing(model: Path) -> None:
    """The rows of gate and up are fewer, the columns of down are not: no width fits both."""
    file = model / "subblocks_safetensors" / "block_1_ffn.safetensors"
    tensors = load_file(file)
    narrow(tensors, "gate_proj", "up_proj")
    save_file(tensors, file, {"format": "pt"})
    for width in (48, 40, 8192):

        def stated(blocks: list[Any], width: int = width) -> None:
            blocks[1]["ffn"]["intermediate_size"] = width

        state(model, stated)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.\w+_proj"):
                load_model(model)


def test_a_width_that_is_no_whole_number_of_heads_is_refused(model: Path) -> None:
    file = model / "subblocks_safetensors" / "block_0_attention.safetensors"
    tensors = load_file(file)
    for name in list(tensors):
        if "k_proj" in name or "v_proj" in name:
            tensors[name] = tensors[name][:-3].contiguous()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="k_proj"):
        load_model(model)
