"""Loading: both ways give the same model, and nothing is ever initialised at random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from anyblock import load_model
from anyblock.errors import CheckpointError, ExecutionError, InputError, UsageError
from anyblock.modeling.skeleton import refusing
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def test_mapped_and_from_pretrained_are_the_stock_model(llama_dir: Path, teacher_dir: Path, ids: torch.Tensor) -> None:
    stock = AutoModelForCausalLM.from_pretrained(llama_dir)
    with torch.no_grad():
        expected = stock(ids).logits
        for model in (
            load_model(teacher_dir),
            load_model(teacher_dir, attn_implementation="sdpa"),
            load_model(llama_dir),
        ):
            assert torch.equal(model(ids).logits, expected)
            assert {n: tuple(b.shape) for n, b in model.named_buffers()} == {
                n: tuple(b.shape) for n, b in stock.named_buffers()
            }
            for name, buffer in model.named_buffers():
                assert torch.equal(buffer, stock.get_buffer(name))


def test_dtype_and_generation_config_are_kept(teacher_dir: Path) -> None:
    model = load_model(teacher_dir, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    with pytest.raises(UsageError, match="unknown dtype 'float99'"):
        load_model(teacher_dir, dtype="float99")


def test_a_tied_head_stays_tied(tmp_path: Path, ids: torch.Tensor) -> None:
    from anyblock import convert_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    stock = LlamaForCausalLM(config).eval()
    stock.save_pretrained(tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "teacher")
    for options in ({}, {"attn_implementation": "sdpa"}):
        model = load_model(tmp_path / "teacher", **options)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model(ids).logits, stock(ids).logits)


def edit(folder: Path, group: str, change: str) -> None:
    file = folder / "subblocks_safetensors" / f"{group}.safetensors"
    index = folder / "model.safetensors.index.json"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors[name.replace("down_proj", "sideways_proj")] = tensors[name].clone()
    else:
        tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, file, {"format": "pt"})
    data = json.loads(index.read_text())
    data["weight_map"] = {
        key: place for key, place in data["weight_map"].items() if not place.endswith(f"/{group}.safetensors")
    } | dict.fromkeys(tensors, f"subblocks_safetensors/{group}.safetensors")
    index.write_text(json.dumps(data))


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
@pytest.mark.parametrize("options", [{}, {"attn_implementation": "sdpa"}], ids=["mapped", "from_pretrained"])
def test_a_wrong_tensor_is_an_error_that_names_it(
    teacher_dir: Path, tmp_path: Path, change: str, options: dict[str, str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(teacher_dir, damaged)
    edit(damaged, "block_1_ffn", change)
    with pytest.raises(CheckpointError, match="sideways_proj" if change == "extra" else "down_proj"):
        load_model(damaged, **options)


def test_a_config_that_does_not_belong_to_the_files_is_refused(teacher_dir: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(teacher_dir, damaged)
    config = json.loads((damaged / "config.json").read_text())
    config["hidden_size"] = 40
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has the shape \([\d, ]*32\) and not \([\d, ]*40\)"):
        load_model(damaged)
    config |= {"hidden_size": 32, "num_hidden_layers": 4}
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        load_model(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 9_999}, "9,999 layers"),
        ({"vocab_size": 0}, "cannot be loaded"),
        ({"pad_token_id": 99_999}, "cannot be loaded.*[Pp]ad"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification, which does not predict",
        ),
    ],
)
def test_values_of_which_no_model_can_be_built_are_refused_at_once(
    llama_dir: Path, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 0, **change}))
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_a_generation_config_that_cannot_be_read_is_refused(teacher_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(teacher_dir, folder)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"generation_config\.json"):
        load_model(folder)


def test_a_further_layer_that_predicts_further_tokens_is_left_out(
    llama_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    """Published files have it after the last layer; without a word of it in config.json, such a layer is a fault."""
    folder = tmp_path / "model"
    shutil.copytree(llama_dir, folder)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    last = config["num_hidden_layers"] - 1
    further = {
        name.replace(f"layers.{last}.", f"layers.{last + 1}."): tensor.clone()
        for name, tensor in tensors.items()
        if f"layers.{last}." in name
    }
    save_file(
        tensors | further | {f"model.layers.{last + 1}.eh_proj.weight": torch.ones(3)},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match="no place for"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 1}))
    assert torch.equal(load_model(folder)(ids).logits, load_model(llama_dir)(ids).logits)


def test_what_a_model_wants_in_float32_stays_so_in_a_model_of_half_precision(
    teacher_dir: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules_strict", ["mlp.*_proj.bias"])
    stock = LlamaForCausalLM.from_pretrained(llama_dir, dtype=torch.bfloat16)
    expected = {name: tensor.dtype for name, tensor in stock.state_dict().items()}
    assert set(expected.values()) == {torch.bfloat16, torch.float32}
    model = load_model(teacher_dir, dtype=torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == expected
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_lack_of_memory_is_not_taken_for_a_damaged_checkpoint():
    with pytest.raises(ExecutionError, match="some/model does not fit into memory"), refusing("some/model"):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(CheckpointError, match="some/model"), refusing("some/model"):
        raise RuntimeError("shape '[2, 2]' is invalid for input of size 3")


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"attn_implementation": "sdpa"}])
def test_a_loaded_model_can_be_trained_and_its_files_stay_as_they_are(
    teacher_dir: Path, ids: torch.Tensor, options: dict[str, str]
) -> None:
    """Weights that are mapped from files want gradients as those of `from_pretrained` do, and changing them writes nothing."""
    before = {path: path.read_bytes() for path in teacher_dir.rglob("*.safetensors")}
    model = load_model(teacher_dir, **options)
    assert all(parameter.requires_grad for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert {path: path.read_bytes() for path in teacher_dir.rglob("*.safetensors")} == before
