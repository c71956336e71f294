"""`--for llama.cpp`: widths that its storage types divide, and what reports say about those that they do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from anyblock.cli import app
from anyblock_tests.fixtures import TRAINED
from gguf import GGUFReader
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

SMALL = (
    "device=cpu", "data.block_size=16", "data.calibration_tokens=128", "data.scoring_tokens=32", "data.evaluation_tokens=32",
    "search.refine_rounds=0", "evaluation.enabled=false",
    "pruning.attention.no_op=false", "pruning.ffn.no_op=false", "pruning.ffn.sizes=[0.3,0.7]",
)  # fmt: skip


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_child_for_llama_cpp_has_widths_that_k_quants_divide_and_reports_say_what_its_rows_allow(
    tmp_path: Path,
) -> None:
    """30 and 70 % of 1,024 channels are usually 320 and 704; widths of a teacher without whole blocks: `test_schema.py`."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, num_key_value_heads=2, intermediate_size=1024)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    for file in TRAINED.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "model")
    (tmp_path / "text.txt").write_text("the old tree sees a house\n" * 80)
    given = ("--for", "llama.cpp", "--budget", "params=0.6x", "--data", tmp_path / "text.txt")
    run("compress", tmp_path / "model", tmp_path / "child", *given, *SMALL)
    run("export", tmp_path / "child", tmp_path / "out", "--format", "llama.cpp")
    (file,) = (tmp_path / "out").glob("*.gguf")
    rows = {tensor.name: int(tensor.shape[0]) for tensor in GGUFReader(file).tensors}
    widths = [rows[f"blk.{layer}.ffn_down.weight"] for layer in range(2)]
    assert min(widths) < 1024
    assert set(widths) <= {256, 768, 1024}

    formats = json.loads((tmp_path / "child.run" / "summary.json").read_text())["formats"]
    assert formats == json.loads(run("inspect", tmp_path / "child", "--json"))["formats"]
    assert not formats["gguf"]["obstacles"]
    (narrow,) = formats["gguf"]["remarks"]  # nothing about `down_proj`
    fallbacks = "q8_0 for q6_k, q5_1 for q5_k, q5_0 for q4_k, iq4_nl for q3_k, iq4_nl for q2_k"
    assert narrow == f"14 of 16 matrices have rows of 64: {fallbacks}"
    for page in ("report.md", "report.html"):
        assert narrow in (tmp_path / "child.run" / page).read_text()
