"""A head and an embedding that the config ties and the files keep apart, or the other way round: as transformers decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model, get_family, load_model
from anyblock.checkpoint.safetensors_writer import Stored, same_bytes
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.costs.cost_model import Scenario
from anyblock.errors import CheckpointError
from anyblock.export.export import export_child
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.pipeline.inspection import Inspection, inspect_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

TRAINED = Path(__file__).parents[1] / "assets" / "tiny-llama"


class Notes:
    """A progress that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def task(self, description: str, *, total: int, unit: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda amount: None)


def variant(llama_dir: Path, folder: Path, *, tied: bool, head: str) -> Path:
    """Copy the tiny Llama with another config and a head that is `same` as the embedding, of its `own`, or `absent`."""
    shutil.copytree(llama_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tied}))
    tensors = load_file(folder / "model.safetensors")
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].flip(0))
    if head == "same":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    elif head == "absent":
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def inspected(folder: Path) -> Inspection:
    return inspect_model(folder, Scenario())


@torch.no_grad()
def layerwise_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    engine = LayerwiseModel(SubblockCheckpoint.open(folder), get_family("llama"))
    batch = engine.prepare(ids)
    hidden = batch.hidden
    for index in range(engine.num_layers):
        hidden = engine.run(index, hidden, batch)
    return engine.logits(hidden, batch)


@pytest.mark.parametrize(
    ("tied", "head", "shared"),
    [(True, "own", False), (True, "same", True), (True, "absent", True), (False, "own", False), (False, "same", False)],
)
def test_the_teacher_is_transformers_model_everywhere(
    llama_dir: Path, tmp_path: Path, ids: torch.Tensor, tied: bool, head: str, shared: bool
) -> None:
    source, told = variant(llama_dir, tmp_path / "in", tied=tied, head=head), Notes()
    stock = AutoModelForCausalLM.from_pretrained(source)
    assert (stock.lm_head.weight is stock.model.embed_tokens.weight) == shared
    expected, params = stock(ids).logits, sum(parameter.numel() for parameter in stock.parameters())

    out = convert_model(source, tmp_path / "out", progress=told)
    exported = export_child(out, tmp_path / "exported", "transformers")
    for model in (
        load_model(source),
        load_model(out),
        load_model(out, attn_implementation="sdpa"),
        load_model(exported),
    ):
        assert torch.equal(model(ids).logits, expected)
        assert sum(parameter.numel() for parameter in model.parameters()) == params
    torch.testing.assert_close(layerwise_logits(out, ids), expected)
    loaded = AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=True)
    assert torch.equal(loaded(ids).logits, expected)

    odd = tied and head == "own"
    for folder in (source, out):
        found = inspected(folder)
        assert found.costs.params == params
        assert any("different tensors" in note for note in found.notes) == (odd and folder == source)
    assert len([note for note in told.notes if "different tensors" in note]) == odd
    for folder in (out, exported):
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] == (tied and not odd)


def test_a_gguf_file_has_the_head_that_was_kept(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    source = variant(TRAINED, tmp_path / "in", tied=True, head="own")
    out = export_child(convert_model(source, tmp_path / "out"), tmp_path / "gguf", "gguf")
    (file,) = out.glob("*.gguf")
    names = [tensor.name for tensor in gguf.GGUFReader(file).tensors]
    assert {"output.weight", "token_embd.weight"} <= set(names)


def test_a_subblock_checkpoint_that_says_otherwise_is_converted_again(
    llama_dir: Path, teacher_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    """As earlier versions wrote it: the config says tied, and the files hold two tensors."""
    old = Path(shutil.copytree(teacher_dir, tmp_path / "old"))
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    for use in (
        lambda: load_model(old),
        lambda: inspected(old),
        lambda: layerwise_logits(old, ids),
        lambda: export_child(old, tmp_path / "no", "transformers"),
    ):
        with pytest.raises(CheckpointError, match="different tensors") as raised:
            use()
        assert f"anyblock convert {old} OUT" in raised.value.hint
    again = convert_model(old, tmp_path / "again")
    assert torch.equal(load_model(again)(ids).logits, load_model(llama_dir)(ids).logits)


def test_bytes_are_compared_to_the_last(tmp_path: Path) -> None:
    first = torch.zeros(3 << 18)  # three megabytes
    second = first.clone()
    second[-1] = 1.0
    tensors = {"a": first, "b": second, "c": first.clone(), "d": first.view(3, -1).clone(), "e": first.to(torch.int32)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    stored = {name: Stored(*place) for name, place in SourceCheckpoint.open(tmp_path).tensors.items()}
    assert [same_bytes(stored["a"], stored[name]) for name in "abcde"] == [True, False, True, False, False]
