"""`save_pretrained` into a child's own folder: what was saved is the model from then on, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import compress, convert_model, evaluate, export_child, load_model
from anyblock.checkpoint import SourceCheckpoint, SubblockCheckpoint, is_subblock_checkpoint
from anyblock.config import RunConfig
from anyblock.contract.services import services
from anyblock.costs.cost_model import Scenario
from anyblock.errors import CheckpointError
from anyblock.pipeline.inspection import inspect_model
from anyblock.run.run_folder import fingerprint_of
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.usefixtures("auto_classes")

IDS = torch.arange(1, 25).reshape(2, 12)
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARDS = {"max_shard_size": "300KB"}


def auto(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def trained(model: Any) -> torch.Tensor:
    """Change every parameter by a step of gradient descent, and return the logits."""
    before = logits(model)
    model(IDS, labels=IDS).loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.05 * parameter.grad.sign())
            parameter.grad = None
    assert not torch.equal(logits(model), before)
    return logits(model)


@pytest.fixture
def child(trained_child: Path, tmp_path: Path) -> Path:
    """A copy of the trained child, all layers of which differ."""
    return Path(shutil.copytree(trained_child, tmp_path / "child"))


@pytest.mark.parametrize("load", [load_model, auto])
@pytest.mark.parametrize("saves", [({},), (SHARDS,), ({}, {}), (SHARDS, SHARDS), (SHARDS, {})], ids=str)
def test_what_was_saved_last_is_the_model(child: Path, load: Callable[..., Any], saves: tuple[Any, ...]) -> None:
    """Also when the saved model is trained and saved again, and with one or several files."""
    for options in saves:
        model = load(child)
        expected = trained(model)
        model.save_pretrained(child, **options)
        assert torch.equal(logits(load_model(child)), expected)
        assert torch.equal(logits(load_model(child, attn_implementation="sdpa")), expected)
        assert torch.equal(logits(auto(child)), expected)
        assert not is_subblock_checkpoint(child)
        assert fingerprint_of(child) is None


@pytest.mark.parametrize("load", [load_model, auto])
@pytest.mark.parametrize("place", ["elsewhere", "in place"])
def test_everything_works_on_a_saved_child(child: Path, load: Callable[..., Any], place: str, tmp_path: Path) -> None:
    """It is converted, exported, pushed, evaluated and inspected as what was saved."""
    saved = child if place == "in place" else tmp_path / "saved"
    model = load(child)
    expected = trained(model)
    blocks = inspect_model(child, Scenario()).block_configs
    if saved != child:
        for file in child.glob("tokenizer*"):
            (saved / file.name).parent.mkdir(exist_ok=True)
            shutil.copy(file, saved)
    model.save_pretrained(saved)
    assert torch.equal(logits(auto(saved)), expected)
    converted = convert_model(saved, tmp_path / "converted")
    assert torch.equal(logits(load_model(converted)), expected)
    assert not {"anyblock_layers", "auto_map", "per_layer_config"} & SubblockCheckpoint.open(converted).config.keys()
    for name in ("transformers", "anymodel", "gguf"):
        assert export_child(saved, tmp_path / name, name).is_dir()
    assert torch.equal(logits(load_model(tmp_path / "transformers")), expected)
    assert torch.equal(logits(auto(tmp_path / "transformers")), expected)
    for form in (None, "transformers"):
        with services().prepare_child(saved, format_name=form) as prepared:
            pushed = tmp_path / f"pushed-{form}"
            for name, file in prepared.files.items():
                (pushed / name).parent.mkdir(exist_ok=True, parents=True)
                shutil.copy(file, pushed / name)
        assert torch.equal(logits(load_model(pushed)), expected)
        assert not (pushed / SINGLE).exists()
        assert is_subblock_checkpoint(pushed) == (form is None)
    assert inspect_model(saved, Scenario()).block_configs == blocks
    assert evaluate(saved, data=IDS).child.loss == evaluate(model, data=IDS).child.loss
    assert not list(tmp_path.glob(".*"))  # no conversion is left


def test_a_running_model_is_not_touched_by_saves_into_its_folder(child: Path) -> None:
    """The files that it maps are replaced and not written into, also when they are those of an earlier save."""
    models = [(load_model(child), logits(load_model(child)))]
    for _ in range(2):
        model = load_model(child)
        expected = trained(model)
        model.save_pretrained(child)
        models += [(model, expected), (load_model(child), expected)]
    assert all(torch.equal(logits(model), expected) for model, expected in models)


def settings_of(child: Path, out: Path) -> dict[str, Any]:
    text = child.parent / "text.txt"
    text.write_text("The old tree stands under the stone house.\n" * 60)
    return {
        "model": str(child),
        "output": str(out),
        "data": {"path": str(text), "block_size": 16, "calibration_tokens": 64, "scoring_tokens": 64},
        "search": {"budget": {"params": "0.9x"}},
    }


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "load_model": lambda child, _: load_model(child),
    "load_model with options": lambda child, _: load_model(child, attn_implementation="eager"),
    "convert": lambda child, out: convert_model(child, out),
    "export": lambda child, out: export_child(child, out, "transformers"),
    "prepare_child": lambda child, _: services().prepare_child(child).__enter__(),
    "inspect": lambda child, _: inspect_model(child, Scenario()),
    "evaluate": lambda child, _: evaluate(child, data=IDS),
    "compress": lambda child, out: compress(RunConfig.model_validate(settings_of(child, out))),
    "SubblockCheckpoint": lambda child, _: SubblockCheckpoint.open(child),
    "SourceCheckpoint": lambda child, _: SourceCheckpoint.open(child),
}


def copied_file(child: Path) -> None:
    """The weights alone, copied by hand: nothing says that they are newer."""
    load_model(child).save_pretrained(child.parent / "other")
    shutil.copy(child.parent / "other" / SINGLE, child)


def copied_file_and_own_config(child: Path) -> None:
    """The same, next to a configuration that was changed by hand."""
    copied_file(child)
    config = json.loads((child / "config.json").read_text())
    (child / "config.json").write_text(json.dumps(config | {"use_cache": False}))


def killed_save(child: Path) -> None:
    """A save in several files that was killed before it wrote its index."""
    index = (child / INDEX).read_bytes()
    load_model(child).save_pretrained(child, **SHARDS)
    (child / INDEX).write_bytes(index)


def one_file_and_then_several(child: Path) -> None:
    """transformers leaves the file of the first save, and would load that."""
    load_model(child).save_pretrained(child)
    load_model(child).save_pretrained(child, **SHARDS)


def variant(child: Path) -> None:
    load_model(child).save_pretrained(child, variant="fp16")


def another_tools_index(child: Path) -> None:
    """Saved into a subblock checkpoint that AnyBlock has not written."""
    index = json.loads((child / INDEX).read_text())
    (child / INDEX).write_text(json.dumps(index | {"metadata": {}}))
    load_model(child).save_pretrained(child)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault",
    [copied_file, copied_file_and_own_config, killed_save, one_file_and_then_several, variant, another_tools_index],
)
def test_two_models_in_one_folder_are_refused(child: Path, fault: Callable[[Path], None], way: str) -> None:
    fault(child)
    with pytest.raises(CheckpointError, match="holds two models") as raised:
        WAYS[way](child, child.parent / "out")
    assert f"delete {INDEX}" in str(raised.value.hint)
    assert not (child.parent / "out").exists()


def test_a_variant_that_is_asked_for_is_loaded(child: Path) -> None:
    model = load_model(child)
    expected = trained(model)
    model.save_pretrained(child, variant="fp16")
    assert torch.equal(logits(load_model(child, variant="fp16")), expected)


def test_the_advice_for_two_models_works(child: Path) -> None:
    old = logits(load_model(child))
    copied_file(child)
    kept = shutil.copytree(child, child.parent / "kept")
    (kept / SINGLE).unlink()
    assert torch.equal(logits(load_model(kept)), old)
    model = load_model(kept)
    expected = trained(model)
    model.save_pretrained(child.parent / "trained")
    shutil.copy(child.parent / "trained" / SINGLE, child)
    (child / INDEX).unlink()
    shutil.rmtree(child / "subblocks_safetensors")
    assert torch.equal(logits(load_model(child)), expected)


def test_an_exported_child_saved_into_its_own_folder(child: Path) -> None:
    """The export's files stay there, and what was saved counts."""
    out = export_child(child, child.parent / "out", "transformers")
    model = auto(out)
    expected = trained(model)
    model.save_pretrained(out)
    for load in (auto, load_model):
        assert torch.equal(logits(load(out)), expected)
    assert torch.equal(logits(load_model(convert_model(out, child.parent / "converted"))), expected)


def test_a_child_of_an_adapter_that_is_not_installed_is_refused_by_the_auto_classes(
    child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyblock import family
    from anyblock.errors import UnsupportedModelError

    def none(name: str) -> Any:
        raise UnsupportedModelError(f"no adapter for {name}")

    monkeypatch.setattr(family, "get_family", none)
    with pytest.raises(UnsupportedModelError, match="no adapter for llama"):
        auto(child)
