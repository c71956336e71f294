"""What a user sees of a model that no adapter serves: a tree, a note, and a distribution of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anyblock.cli import main
from anyblock_new_family.introspection import infer_family
from anyblock_new_family.write import files


@pytest.fixture(scope="module")
def arcee_dir(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A checkpoint of a `model_type` that no adapter of this repository serves: 3 layers of which none is special."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = AutoConfig.for_model("arcee", **sizes, **heads, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("arcee") / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for path in llama_dir.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_inspect_shows_an_unsupported_model_block_by_block(
    arcee_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run("inspect", arcee_dir) == 0
    captured = capsys.readouterr()
    assert "no adapter serves model_type 'arcee'" in captured.err
    assert "its structure was inferred" in captured.err
    assert "arcee" in captured.out
    assert run("new-family", arcee_dir) == 0
    shown = capsys.readouterr().out
    assert "blocks 0-2" in shown
    assert "2 kv heads; can lose: the whole half, kv_heads down to 1 of 2" in shown
    assert "ffn 48; can lose: the whole half, ffn_intermediate down to 1 of 48" in shown
    assert "num_key_value_heads = num_key_value_heads" in shown
    assert "hidden_size: " in shown.partition("not worked out")[2]


@pytest.mark.slow
def test_a_model_without_an_adapter_is_compressed_with_a_note_of_what_was_inferred(
    arcee_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    small = ["data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=128", "data.batch_size=4"]
    arguments = ["compress", arcee_dir, tmp_path / "child", "--budget", "params=0.8x", "--data", text, *small]
    assert run(*arguments) == 2
    assert "no adapter serves model_type 'arcee'" in capsys.readouterr().err
    assert run(*arguments, "--infer-family") == 0
    shown = capsys.readouterr()
    assert "no adapter for 'arcee' is installed" in shown.out + shown.err
    assert len(json.loads((tmp_path / "child" / "config.json").read_text())["block_configs"]) == 3


@pytest.mark.slow
def test_the_command_writes_what_the_same_facts_give_again_in_the_form_that_ruff_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ruff")
    pytest.importorskip("anyblock_conformance")
    written = tmp_path / "anyblock-arcee"
    assert run("new-family", "arcee", written) == 0
    assert f"written: {written}" in capsys.readouterr().out
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(written)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    readme = (written / "README.md").read_text()
    assert "Levels that are passed: structure, convert, build, prune, search." in readme
    assert (written / "tests" / "test_conformance.py").read_text().count("\n") == 3
    levels = dict.fromkeys(("structure", "convert", "build", "prune", "search"), True)
    again = files(replace(infer_family("arcee"), levels=levels))
    assert again["README.md"] == readme
    assert again["pyproject.toml"] == (written / "pyproject.toml").read_text()
    assert run("new-family", "arcee", written) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
