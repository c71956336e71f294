"""One run that uses something of every kind of this distribution, by name, from YAML and from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from anyblock_example_extension.metric import SoftenedKl, SoftenedSettings
from anyblock_tests.fixtures import TRAINED
from safetensors.torch import load_file

TEXT = Path(__file__).parents[4] / "demo" / "text" / "calibration.txt"
RUN = f"""
model: {TRAINED}
output: child
data: {{path: {TEXT}, block_size: 64, calibration_tokens: 512, scoring_tokens: 128, evaluation_tokens: 512}}
search:
  budget: {{params: 0.6x, matrices: ">=36"}}  # removing whole ffns alone is not enough
  refine_rounds: 0
costs: {{matrices: {{smallest: 1000}}}}
scoring: {{metric: softened_kl, softened_kl: {{temperature: 4.0}}}}
evaluation: {{also: [repetition], repetition: {{prompts: 2, new_tokens: 12}}}}
report: {{sections: [repetition]}}
pruning: {{ffn: {{sizes: []}}, magnitude: {{enabled: true, sizes: [0.5, 0.75]}}}}
adaptation: {{tune_norms: {{enabled: true, steps: 3}}}}
"""


def anyblock(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "anyblock", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("every-kind")
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    anyblock(folder, "compress", "run.yaml", "scoring.softened_kl.temperature=3.0")
    return folder


def test_the_metric_scores_and_its_setting_arrives(run: Path) -> None:
    (stage,) = (run / "child.run" / "stages").glob("*-scores")
    assert json.loads((stage / "inputs.json").read_text())["inputs"]["settings"]["softened_kl"] == {"temperature": 3.0}
    assert "softened_kl" in (run / "child.run" / "report.md").read_text()


def test_the_metric_is_kl_at_temperature_one() -> None:
    teacher, child = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=child)
    )
    total, weight = SoftenedKl(SoftenedSettings(temperature=1.0)).distance(child, teacher, None)
    assert total / weight == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_the_evaluation_and_the_section_are_in_the_report(run: Path) -> None:
    summary = json.loads((run / "child.run" / "summary.json").read_text())
    ((figure,),) = summary["evaluations"].values()
    assert 0 < figure["child"] <= 1
    assert 0 < figure["teacher"] <= 1
    page = (run / "child.run" / "report.md").read_text()
    assert "| repetition | distinct 3-grams |" in page
    assert "## Repetition\n\nThe child repeats itself" in page


def test_the_sources_candidates_are_chosen_and_keep_the_largest_channels(run: Path) -> None:
    blocks = json.loads((run / "child" / "config.json").read_text())["block_configs"]
    teacher = load_file(TRAINED / "model.safetensors")
    full = {layer: teacher[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in range(len(blocks))}
    narrow = [
        layer
        for layer, block in enumerate(blocks)
        if 0 < (block["ffn"]["intermediate_size"] or 0) < full[layer].shape[1]
    ]
    assert narrow
    for layer in narrow:
        file = run / "child" / "subblocks_safetensors" / f"block_{layer}_ffn.safetensors"
        found = load_file(file)[f"model.layers.{layer}.mlp.up_proj.weight"]
        kept = full[layer].float().norm(dim=0).argsort(descending=True, stable=True)[: found.shape[0]]
        assert torch.equal(found, teacher[f"model.layers.{layer}.mlp.up_proj.weight"][kept])


def test_the_counted_cost_is_bounded_and_reported(run: Path) -> None:
    summary = json.loads((run / "child.run" / "summary.json").read_text())
    kept = sum(
        4 * (not block["attention"]["no_op"]) + 3 * (not block["ffn"]["no_op"]) for block in summary["block_configs"]
    )
    assert summary["costs"]["matrices"] == kept >= 36
    assert summary["teacher_costs"]["matrices"] == 7 * len(summary["block_configs"])


def test_the_measured_cost_is_bounded_from_the_command_line(run: Path) -> None:
    settings = [
        "search.length=24",
        "search.generated=4",
        "search.timing_rounds=1",
        "evaluation.also=[]",
        "report.sections=[]",
    ]
    settings += ["~adaptation", "scoring.metric=kl", "search.budget.processor_time=100x"]
    anyblock(run, "compress", "run.yaml", "output=measured", *settings)
    summary = json.loads((run / "measured.run" / "summary.json").read_text())
    assert summary["costs"]["processor_time"] > 0
    (bounded,) = [line for line in summary["budgets"] if line["cost"] == "processor_time"]
    assert bounded["used"] <= bounded["upper"]


def test_the_adaptation_runs_in_its_place_and_is_judged(run: Path) -> None:
    summary = json.loads((run / "child.run" / "summary.json").read_text())
    stages = [stage["name"] for stage in summary["stages"]]
    assert stages.index("repair") + 1 == stages.index("tune_norms")
    (folder,) = (run / "child.run" / "stages").glob("*-tune_norms")
    result = json.loads((folder / "adapted.json").read_text())
    assert result["kept"] == (result["after"] < result["before"])
    assert result["lines"][0]["tensors"] > 0
    page = (run / "child.run" / "report.md").read_text()
    assert ("norms were tuned" in page) == result["kept"]
    assert "| tune_norms |" in page


def test_a_wrong_setting_is_refused_with_its_line(run: Path) -> None:
    (run / "wrong.yaml").write_text(
        RUN.replace("temperature: 4.0", "temperature: warm").replace("also: [rep", "also: [ref")
    )
    said = anyblock(run, "compress", "wrong.yaml", code=2)
    assert "wrong.yaml:9: scoring.softened_kl.temperature: input should be a valid number" in said
    (run / "unknown.yaml").write_text(RUN.replace("also: [rep", "also: [ref"))
    said = anyblock(run, "compress", "unknown.yaml", code=2)
    assert "unknown.yaml:10: evaluation.also[0]: there is no evaluation 'refetition'" in said
    assert "did you mean 'repetition'?" in said


def test_everything_is_listed_with_its_origin() -> None:
    found = json.loads(anyblock(Path.cwd(), "list", "--json"))
    mine = {
        kind: [row["name"] for row in rows if row["from"].startswith("anyblock-example-extension")]
        for kind, rows in found.items()
    }
    assert mine["sources"] == ["magnitude"]
    assert mine["costs"] == ["matrices", "processor_time"]
    assert mine["adaptations"] == ["tune_norms"]
    assert mine["metrics"] == ["softened_kl"]
    assert mine["evaluations"] == mine["sections"] == ["repetition"]
    assert "WandaChannelContributionHook" in mine["hooks"]
