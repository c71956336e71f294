"""The tables, as they are printed."""

from __future__ import annotations

import io

import pytest
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig, MoEConfig
from anyblock.errors import UsageError
from anyblock.evaluation.result import EvaluationResult, ModelFigures
from anyblock.report.side_by_side import side_by_side
from anyblock.report.table import bar, block_table
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

DENSE = BlockConfig(attention=AttentionConfig(num_key_value_heads=4), ffn=FFNConfig(intermediate_size=200))
MOE = MoEConfig(num_local_experts=8, num_experts_per_tok=2, expert_intermediate_dim=64)
SPARSE = BlockConfig(attention=AttentionConfig(num_key_value_heads=4), ffn=FFNConfig(moe=MOE))
MAMBA = BlockConfig(
    attention=AttentionConfig(mamba=MambaConfig(state_dim=16, num_heads=8, head_dim=4, num_groups=2)),
    ffn=FFNConfig(no_op=True),
)


def printed(table):
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    return console.file.getvalue().splitlines()


def rows(child, teacher):
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(block_table(child, teacher))]
    return [row for row in found if row]


def test_dense_layers():
    child = [
        DENSE,
        DENSE.with_attention(no_op=True),
        DENSE.with_ffn(intermediate_size=50).with_attention(num_key_value_heads=1),
        DENSE.with_ffn(no_op=True).with_attention(num_key_value_heads=2, num_attention_heads=8),
    ]
    assert rows(child, [DENSE] * 4) == [
        ["0", "4 kv heads", "██████████ 100%", "200", "██████████ 100%"],
        ["1", "no-op", "0%", "200", "██████████ 100%"],
        ["2", "1 of 4 kv heads", "██▌         25%", "50 of 200", "██▌         25%"],
        ["3", "2 of 4 kv heads, 8 query heads", "█████       50%", "no-op", "0%"],
    ]


def test_experts_and_mamba():
    child = [SPARSE.with_moe(num_local_experts=4), SPARSE.with_moe(expert_intermediate_dim=16), MAMBA]
    assert rows(child, [SPARSE, SPARSE, MAMBA]) == [
        ["0", "4 kv heads", "██████████ 100%", "4 of 8 experts x 64", "█████       50%"],
        ["1", "4 kv heads", "██████████ 100%", "8 experts x 16 of 64", "██▌         25%"],
        ["2", "mamba, 8 heads", "██████████ 100%", "no-op", "0%"],
    ]


def test_heads_of_latent_attention():
    latent = BlockConfig(attention=AttentionConfig(num_attention_heads=16), ffn=FFNConfig(intermediate_size=200))
    child = [latent.with_attention(num_attention_heads=12), latent, latent.with_attention(no_op=True)]
    assert [row[1:3] for row in rows(child, [latent] * 3)] == [
        ["12 of 16 heads", "███████▌    75%"],
        ["16 heads", "██████████ 100%"],
        ["no-op", "0%"],
    ]


def test_lengths_must_agree():
    with pytest.raises(UsageError, match="1 block configs of the child, 2 of the teacher"):
        block_table([DENSE], [DENSE] * 2)


@settings(deadline=None, derandomize=True)
@given(st.floats(-1, 2), st.floats(0, 1), st.integers(1, 30))
def test_bar_has_its_width_and_grows(share, less, cells):
    assert len(bar(share, cells)) == cells
    assert len(bar(share * less, cells).rstrip()) <= len(bar(abs(share), cells).rstrip())
    assert bar(1.0, cells) == "█" * cells
    assert bar(0.0, cells) == " " * cells


def result(**changes):
    child = ModelFigures(loss=2.0, parameters=1_500_000, bytes=3_000_000, tokens_per_second=1234.5)
    teacher = ModelFigures(loss=1.5, parameters=2_000_000, bytes=4_000_000, tokens_per_second=900.0)
    values = {"teacher": teacher, "kl_per_token": 0.25, "top1": 0.8, "top5": 0.95, **changes}
    return EvaluationResult(child, tokens=100, predicted=99, block_size=100, stride=None, data_key="k", **values)


def test_side_by_side():
    lines = printed(side_by_side({"small": result(), "smaller": result(kl_per_token=0.5)}))
    found = {
        cells[0]: cells[1:] for line in lines if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) > 1
    }
    assert found["perplexity"] == ["4.482", "7.389", "7.389"]
    assert found["parameters"] == ["2.00 M", "1.50 M", "1.50 M"]
    assert found["KL per token"] == ["0", "0.2500", "0.5000"]
    assert found["top-5 agreement"] == ["100.0%", "95.0%", "95.0%"]
    assert found["tokens/s"] == ["900", "1,234", "1,234"]


def test_side_by_side_without_a_teacher():
    text = "\n".join(printed(side_by_side({"one": result(teacher=None, kl_per_token=None, top1=None, top5=None)})))
    assert "perplexity" in text
    assert "teacher" not in text
    assert "KL" not in text


def test_results_on_different_data_are_not_put_side_by_side():
    other = EvaluationResult(**{**result().__dict__, "data_key": "another"})
    with pytest.raises(UsageError, match="different data"):
        side_by_side({"a": result(), "b": other})
    with pytest.raises(UsageError, match="no evaluation results"):
        side_by_side({})
