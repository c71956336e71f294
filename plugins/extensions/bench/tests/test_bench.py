"""`anyblock bench`: what it counts is what the models are; nothing here depends on time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyblock import convert_model, load_model
from anyblock.cli import app, main
from anyblock.contract.cost import LatencyScenario
from anyblock.errors import UsageError
from anyblock_bench.bench import bench
from anyblock_bench.table import speed_table
from anyblock_tests.children import child_without
from anyblock_tests.pages import run_page
from typer.testing import CliRunner

SCENARIO = LatencyScenario(batch_size=2, prefill_length=16, generated=4)
HIDDEN, HEADS, KV_HEADS = 32, 4, 2
README = Path(__file__).parents[1] / "README.md"
ASSET = Path(__file__).parents[4] / "core" / "tests" / "assets" / "tiny-llama"


def test_bench_counts_what_the_models_are(teacher_dir: Path, tmp_path: Path) -> None:
    child = child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={1})
    models = {"teacher": load_model(teacher_dir), "child": load_model(child)}
    result = bench(models, SCENARIO, repeats=2)
    before, after = result.models["teacher"], result.models["child"]
    assert after.prefill_flops < before.prefill_flops
    assert before.parameters == sum(p.numel() for p in models["teacher"].parameters())
    assert after.weight_bytes == 4 * sum(p.numel() for p in models["child"].parameters())
    tokens = SCENARIO.batch_size * (SCENARIO.prefill_length + SCENARIO.generated - 1)
    layer = 2 * KV_HEADS * (HIDDEN // HEADS) * 4 * tokens
    assert before.cache_bytes == 3 * layer
    assert after.cache_bytes == 2 * layer + 2 * 4 * tokens  # a removed attention keeps one number for each of the two
    for speed in (before, after):
        assert speed.first_token.samples == speed.decode.samples == 2
        assert speed.prefill_tokens_per_second == pytest.approx(32 / speed.first_token.median * 1000)
        assert speed.decode_tokens_per_second == pytest.approx(2 / speed.decode.median * 1000)
    assert json.loads(json.dumps(result.to_dict()))["models"]["child"]["prefill_flops"] == after.prefill_flops
    assert speed_table(result).row_count == 8


def test_one_new_token_has_no_decoding(teacher_dir: Path) -> None:
    result = bench({"model": load_model(teacher_dir)}, LatencyScenario(1, 8, 1), repeats=1)
    assert result.models["model"].decode is result.models["model"].decode_tokens_per_second is None
    assert speed_table(result).row_count == 8


@pytest.mark.parametrize(
    ("scenario", "says"), [(LatencyScenario(1, 128, 1), "exceed the context"), (LatencyScenario(1, 8, 0), "no token")]
)
def test_scenarios_that_cannot_be(teacher_dir: Path, scenario: LatencyScenario, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        bench({"model": load_model(teacher_dir)}, scenario)


def test_the_command_shows_both_models(teacher_dir: Path, tmp_path: Path) -> None:
    child = child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={1})
    arguments = ["bench", str(child), "--teacher", str(teacher_dir), "--prompt-length", "8", "--new-tokens", "3"]
    shown = CliRunner().invoke(app, [*arguments, "--repeats", "1"])
    assert shown.exit_code == 0, shown.output
    assert all(word in shown.output for word in ("teacher", "child", "ratio", "first token", "decoding step"))
    plain = CliRunner().invoke(app, [*arguments, "--repeats", "1", "--json"])
    result = json.loads(plain.stdout)
    assert list(result["models"]) == ["teacher", "child"]
    assert result["scenario"] == {"batch_size": 1, "prefill_length": 8, "generated": 3}
    alone = CliRunner().invoke(app, ["bench", str(child), "--prompt-length", "8", "--repeats", "1", "--json"])
    assert list(json.loads(alone.stdout)["models"]) == ["model"]


def test_everything_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = convert_model(ASSET, tmp_path / "teacher")
    child_without(teacher, tmp_path / "child", attention={0}, ffn={1, 2})
    assert len(run_page(README, tmp_path, monkeypatch)) == 3


def test_a_missing_tensor_is_named_and_nothing_is_measured(
    teacher_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={1})
    next((child / "subblocks_safetensors").glob("block_1_attention*")).unlink()
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(child)])
    assert ended.value.code == 2
    assert "block_1_attention.safetensors is missing" in capsys.readouterr().err
