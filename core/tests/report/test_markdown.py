"""The Markdown report."""

from __future__ import annotations

import json
import math

import pytest
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.errors import ConfigError, UsageError
from anyblock.evaluation.result import EvaluationResult, ModelFigures
from anyblock.report import format as fmt
from anyblock.report.markdown import escape_cell, markdown_report
from anyblock.report.summary import BudgetLine, RunSummary, SearchLine, StageLine
from hypothesis import given, settings
from hypothesis import strategies as st

TEACHER = BlockConfig(attention=AttentionConfig(num_key_value_heads=4), ffn=FFNConfig(intermediate_size=200))
CHILD = [TEACHER.with_ffn(intermediate_size=50), TEACHER.with_attention(no_op=True)]


def summary(**changes):
    quality = EvaluationResult(
        ModelFigures(2.0, 1000, 4000, 33.0),
        tokens=100,
        predicted=90,
        block_size=10,
        stride=5,
        data_key="k",
        teacher=ModelFigures(1.5, 2000, 8000, 20.0),
        kl_per_token=0.3,
        top1=0.8,
        top5=0.95,
    )
    values = {
        "command": "anyblock compress teacher child --budget params=0.5x",
        "teacher": "some/teacher",
        "model_type": "llama",
        "block_configs": [block.to_dict() for block in CHILD],
        "teacher_block_configs": [TEACHER.to_dict()] * 2,
        "budgets": (BudgetLine("params", 900.0, upper=1000.0), BudgetLine("kv_heads", 4.0, lower=2.0)),
        "costs": {"params": 900.0, "memory": 5e9, "kv_heads": 0.0, "experts": 0.0},
        "teacher_costs": {"params": 1800.0, "memory": 9e9, "kv_heads": 8.0, "experts": 0.0},
        "search": SearchLine("optimal", 1.25, 1.25, 0.0, "kl", 2.0),
        "quality": quality.to_dict(),
        "stages": (
            StageLine("convert", 2.0),
            StageLine("score", 77.0, reused=True, memory=3 << 30, quality="KL 0.5 to 0.4"),
        ),
        "scenario": {"batch_size": 1, "length": 4096},
        "notes": ("a note",),
        "versions": {"anyblock": "0.1.0"},
    }
    return RunSummary(**{**values, **changes})


def tables(page):
    """Return `{heading: [[cell, ...], ...]}` without header rows, checking that every table is well formed."""
    found, heading, table = {}, "", []
    for line in [*page.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            table.append([cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")])
        elif table:
            assert set(table[1]) == {"---"}
            assert {len(row) for row in table} == {len(table[0])}
            found[heading] = table[2:]
            table = []
    return found


def test_every_part_is_there():
    page = markdown_report(summary())
    found = tables(page)
    assert list(found) == ["Budget", "Quality", "Costs", "Layers", "Search", "Stages"]
    assert found["Budget"] == [
        ["params", "at most 1.00 k", "900", "90.0%"],
        ["kv_heads", "at least 2", "4", "–"],
    ]
    assert found["Quality"][0] == ["perplexity", "4.482", "7.389"]
    assert found["Quality"][2] == ["KL(teacher ‖ child), nats a token", "0", "0.3000"]
    assert found["Costs"] == [
        ["params", "1.80 k", "900", "50.0%"],
        ["memory", "8.38 GiB", "4.66 GiB", "55.6%"],
        ["kv_heads", "8", "0", "0.0%"],  # a dense model has no experts, which is not worth a line
    ]
    assert found["Layers"] == [
        ["0", "4 kv heads", "`██████████` 100%", "50 of 200", "`██▌░░░░░░░` 25%"],
        ["1", "no-op", "`░░░░░░░░░░` 0%", "200", "`██████████` 100%"],
    ]
    assert ["gap", "0 (proven)"] in found["Search"]
    assert found["Stages"] == [
        ["convert", "2.0 s", "", "", ""],
        ["score", "1 min 17 s", "3.00 GiB", "KL 0.5 to 0.4", "reused"],
        ["all", "1 min 19 s", "", "", ""],
    ]
    assert "anyblock compress teacher child --budget params=0.5x" in page
    assert "predicted tokens, windows of 10 tokens sliding by a stride of 5." in page
    assert "Counted for batch size 1, length 4096." in page
    assert "- a note" in page
    assert "anyblock 0.1.0" in page


def test_what_is_missing_leaves_no_empty_section():
    bare = summary(
        budgets=(),
        costs=None,
        teacher_costs=None,
        search=None,
        quality=None,
        stages=(),
        scenario=None,
        notes=(),
        versions=None,
    )
    page = markdown_report(bare)
    assert list(tables(page)) == ["Layers"]
    assert page.count("## ") == 1


def test_an_open_gap_is_not_called_proven():
    page = markdown_report(summary(search=SearchLine("time limit", 1.25, 1.0, 0.2)))
    assert ["gap", "0.2"] in tables(page)["Search"]
    assert "proven" not in page


def test_a_stored_run_gives_the_same_page():
    stored = json.loads(json.dumps(summary().to_dict()))
    assert RunSummary.from_dict(stored) == summary()
    assert markdown_report(stored) == markdown_report(summary())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"budgets": [{"cost": "params"}]}, r"budgets\.0\.used"),
        ({"block_configs": "none"}, "block_configs"),
    ],
)
def test_a_damaged_summary_names_the_field(change, message):
    with pytest.raises(ConfigError, match=message):
        markdown_report({**summary().to_dict(), **change})


def test_layers_must_agree():
    with pytest.raises(UsageError, match="2 block configs of the child, 1 of the teacher"):
        markdown_report(summary(teacher_block_configs=[TEACHER.to_dict()]))


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_any_text_stays_within_its_cell(name):
    page = markdown_report(summary(stages=(StageLine(name, 1.0),)))
    row = next(line for line in page.splitlines() if line.endswith("| 1.0 s |  |  |  |"))
    assert row == f"| {escape_cell(name)} | 1.0 s |  |  |  |"
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.count(8_030_261_248), "8.03 B"),
        (fmt.count(134_515_008), "135 M"),
        (fmt.count(512), "512"),
        (fmt.size(16 * 2**30), "16.0 GiB"),
        (fmt.size(1536), "1.50 KiB"),
        (fmt.size(300), "300 B"),
        (fmt.duration(0.035), "35 ms"),
        (fmt.duration(59.99), "1 min 00 s"),
        (fmt.duration(3_900), "1 h 05 min"),
        (fmt.number(None), "–"),
        (fmt.number(24.1049), "24.10"),
        (fmt.number(999.7, 3), "1,000"),
        (fmt.number(100.4, 3), "100"),
        (fmt.number(123_456.7), "123,457"),
        (fmt.number(math.inf), "inf"),
        (fmt.percent(0.5), "50.0%"),
        (fmt.percent(math.nan), "–"),
        (fmt.ratio(1.0, 0.0), "–"),
        (fmt.quantity(12.3456, "ms"), "12.35 ms"),
        (fmt.quantity(3.0, "layers"), "3"),
    ],
)
def test_numbers(text, expected):
    assert text == expected
