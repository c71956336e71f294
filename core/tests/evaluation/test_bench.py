"""Speed side by side, and that a child with fewer operations does in fact run fewer; nothing here depends on time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from anyblock import convert_model
from anyblock.checkpoint.atomic import atomic_directory
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.checkpoint.writer import SubblockWriter
from anyblock.cli import app
from anyblock.contract.cost import LatencyScenario
from anyblock.errors import UsageError
from anyblock.latency.bench import bench
from anyblock.modeling.load import load_model
from anyblock.report.speed import speed_table
from anyblock_tests.pages import run_page
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

SCENARIO = LatencyScenario(batch_size=2, prefill_length=16, generated=4)
HIDDEN, WIDTH, HEADS, KV_HEADS, VOCABULARY = 32, 48, 4, 2, 96


def child_without(teacher_dir: Path, target: Path, *, attention: set[int], ffn: set[int]) -> Path:
    teacher = SubblockCheckpoint.open(teacher_dir)
    blocks = list(teacher.block_configs)
    for index in attention:
        blocks[index] = blocks[index].with_attention(no_op=True)
    for index in ffn:
        blocks[index] = blocks[index].with_ffn(no_op=True)
    gone = {f"block_{i}_attention" for i in attention} | {f"block_{i}_ffn" for i in ffn}
    with atomic_directory(target) as work:
        writer = SubblockWriter(work, config=teacher.config, block_configs=blocks)
        for group in teacher.groups:
            if group not in gone:
                writer.copy_group(teacher, group)
        writer.finish()
    return target


class Operations(TorchDispatchMode):
    """Counts every operation that reaches the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations(model: torch.nn.Module, ids: torch.Tensor) -> Counter[str]:
    with torch.no_grad(), Operations() as counted:
        model(ids, use_cache=False)
    return counted.seen


def flops(model: torch.nn.Module, ids: torch.Tensor) -> int:
    model.set_attn_implementation("eager")  # torch does not count the fused attention of the CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    return counter.get_total_flops()


def layer_flops(tokens: int) -> tuple[int, int]:
    """Return the matrix products of one attention's projections and of one ffn, from their shapes."""
    head = HIDDEN // HEADS
    projections = HIDDEN * (HEADS + 2 * KV_HEADS) * head + HEADS * head * HIDDEN
    return 2 * tokens * projections, 2 * tokens * 3 * HIDDEN * WIDTH


def test_what_is_removed_is_not_computed(teacher_dir: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    teacher = load_model(teacher_dir)
    child = load_model(child_without(teacher_dir, tmp_path / "child", attention={0}, ffn={0, 2}))
    attention, ffn = layer_flops(ids.numel())
    saved = flops(teacher, ids) - flops(child, ids)
    scores = saved - attention - 2 * ffn  # what is left is the one attention's scores and their use
    heads = 4 * ids.shape[0] * HEADS * ids.shape[1] ** 2 * (HIDDEN // HEADS)
    assert scores == heads


def test_a_removed_half_computes_no_norm_and_calls_no_kernel_of_the_half(
    teacher_dir: Path, tmp_path: Path, ids: torch.Tensor
) -> None:
    """Of a whole layer without halves nothing remains, not even an addition to the residual stream."""
    teacher = operations(load_model(teacher_dir), ids)
    child = operations(
        load_model(child_without(teacher_dir, tmp_path / "child", attention={0, 1, 2}, ffn={0, 1, 2})), ids
    )
    assert teacher["rsqrt"] == 7  # two norms a layer and the final one
    assert child["rsqrt"] == 1
    with Operations() as angles:
        load_model(teacher_dir).model.rotary_emb(torch.zeros(1, 1), torch.arange(ids.shape[1])[None])
    assert not {"silu", "softmax"} & set(child)
    assert child["bmm"] == angles.seen["bmm"]  # older versions of transformers turn positions into angles by a product
    assert child["mm"] + child["addmm"] == 1  # the head
    assert teacher["zeros_like"] == child["zeros_like"] == 0
    assert teacher["add"] - child["add"] >= 3 * 2


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
    teacher = convert_model(Path(__file__).parents[1] / "assets" / "tiny-llama", tmp_path / "teacher")
    child_without(teacher, tmp_path / "child", attention={0}, ffn={1, 2})
    assert len(run_page("bench.md", tmp_path, monkeypatch)) == 3
