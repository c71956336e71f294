"""One run that uses something of every kind, by name, from YAML and the command line, in an interpreter with the wheel alone.

What is built and installed is a copy of this distribution with its names changed, as the README says; this one is switched off.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anyblock.calibration.text import read_text
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.candidate_source import HalfSite
from anyblock.contract.kinds import KINDS
from anyblock.pruning.layouts import dense_mixins
from anyblock_example_extension.metric import SoftenedKl, SoftenedSettings
from anyblock_example_extension.source import Magnitude, MagnitudeSettings
from anyblock_example_extension.storage import IntegerRows
from anyblock_tests.fixtures import TRAINED
from anyblock_tests.wheels import anyblock, install_wheel
from safetensors.torch import load_file

HERE = Path(__file__).parents[1]
TEXT = Path(__file__).parents[4] / "demo" / "text" / "calibration.txt"
RENAMED = {"example": "copied", "Wanda": "Copied", "wanda": "copied", "FFNBlocks": "CopiedBlocks"}
RENAMED |= {"ffn_blocks": "copied_blocks"}
OFF = "anyblock-example-extension"
RUN = f"""
teacher: teacher
student: child
data: {{path: {TEXT}, block_size: 64, calibration_tokens: 512, scoring_tokens: 128, evaluation_tokens: 512}}
search:
  budget: {{params: 0.6x, matrices: ">=36"}}  # removing whole ffns alone is not enough
  refine_rounds: 0
  length: 24
  generated: 4
  timing_rounds: 1
costs: {{matrices: {{smallest: 1000}}}}
scoring: {{metric: softened_kl, softened_kl: {{temperature: 4.0}}}}
evaluation: {{also: [repetition], repetition: {{prompts: 2, new_tokens: 12}}}}
report: {{sections: [repetition]}}
pruning:
  ffn: {{sizes: [0.25]}}
  copied_blocks: {{sizes: [6, 0.5], hook: CopiedBlockContributionHook}}
  magnitude: {{enabled: true, activations: true, sizes: [0.75]}}
execution: {{child-process: {{tasks: 4}}}}
adaptation: {{tune_norms: {{enabled: true, steps: 3}}}}
storage: {{types: [int8_rows], embeddings: int16_rows}}
"""
OPTIONS = ["scoring.softened_kl.temperature=3.0", "--budget", "processor_time=100x"]
OPTIONS += ["--hook", "CopiedChannelContributionHook", "--infer-family", "--engine", "child-process"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the copy's wheel is installed."""
    folder = tmp_path_factory.mktemp("copy")
    source = folder / "copied-extension"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    package = source / "src" / "anyblock_copied_extension"
    (source / "src" / "anyblock_example_extension").rename(package)
    (package / "wanda.py").rename(package / "copied.py")
    for path in [source / "pyproject.toml", *source.rglob("*.py")]:
        text = re.sub("|".join(RENAMED), lambda found: RENAMED[found[0]], path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    return install_wheel(source, folder)


@pytest.fixture(scope="module")
def run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run, of a model type that no installed adapter serves."""
    folder = tmp_path_factory.mktemp("every-kind")
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    shutil.copytree(TRAINED, folder / "teacher")
    config = json.loads((TRAINED / "config.json").read_text())
    config |= {"model_type": "helium", "architectures": ["HeliumForCausalLM"]}
    (folder / "teacher" / "config.json").write_text(json.dumps(config))
    off = f"{OFF},anyblock-new-family"
    anyblock(site, folder, "compress", "run.yaml", *OPTIONS, ANYBLOCK_DISABLE_PLUGINS=off)
    return folder / "child.run"


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_every_kind_is_listed_with_its_origin(site: Path, tmp_path: Path) -> None:
    rows = json.loads(anyblock(site, tmp_path, "list", "--family", "llama", "--json", ANYBLOCK_DISABLE_PLUGINS=OFF))
    mine = {
        kind: [row["name"] for row in rows[kind] if row["from"].startswith("anyblock-copied-extension")]
        for kind in KINDS
    }
    assert mine == {
        "hooks": ["CopiedBlockContributionHook", "CopiedChannelContributionHook"],
        "kinds": ["copied_blocks"],
        "sources": ["magnitude"],
        "formats": ["layer-table"],
        "metrics": ["softened_kl"],
        "costs": ["matrices", "processor_time"],
        "adaptations": ["tune_norms"],
        "dialects": ["teacher-student"],
        "readers": ["paragraphs"],
        "evaluations": ["repetition"],
        "executors": ["child-process"],
        "types": ["int16_rows", "int8_rows"],
        "sections": ["repetition"],
    }


def test_the_metric_scores_and_its_setting_arrives(run: Path) -> None:
    (stage,) = (run / "stages").glob("*-scores")
    assert json.loads((stage / "inputs.json").read_text())["inputs"]["settings"]["softened_kl"] == {"temperature": 3.0}
    assert "softened_kl" in (run / "report.md").read_text()


def test_the_metric_is_kl_at_temperature_one() -> None:
    teacher, child = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=child)
    )
    total, weight = SoftenedKl(SoftenedSettings(temperature=1.0)).distance(child, teacher, None)
    assert total / weight == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_the_evaluation_and_the_section_are_in_the_report(run: Path) -> None:
    ((figure,),) = summary_of(run)["evaluations"].values()
    assert 0 < figure["child"] <= 1
    assert 0 < figure["teacher"] <= 1
    page = (run / "report.md").read_text()
    assert "| repetition | distinct 3-grams |" in page
    assert "## Repetition\n\nThe child repeats itself" in page


def test_hooks_rank_the_units_of_both_kinds_and_the_source_offers_its_widths(run: Path) -> None:
    (stage,) = (run / "stages").glob("*-importance")
    text = "".join(file.read_text() for file in stage.rglob("*.json"))
    assert "CopiedChannelContributionHook" in text
    assert "CopiedBlockContributionHook" in text
    assert load_file(stage / "learned.safetensors").keys() == {f"{layer}|ffn|magnitude" for layer in range(6)}
    (stage,) = (run / "stages").glob("*-scores")
    text = "".join(file.read_text() for file in stage.rglob("*.json"))
    assert all(f"{kind}" in text for kind in ("ffn_intermediate", "copied_blocks", "magnitude"))


def test_blocks_that_stay_are_the_teachers(run: Path) -> None:
    """Where the search chose blocks, and where it did not, the record says which units stayed."""
    kept = json.loads((run.with_name("child") / "anyblock.json").read_text())["kept_units"]
    blocks = json.loads((run.with_name("child") / "config.json").read_text())["block_configs"]
    for group, found in kept.items():
        unit = 16 if found["kind"] == "copied_blocks" else 1
        assert blocks[int(group.split("_")[1])]["ffn"]["intermediate_size"] == unit * len(found["units"])


def test_the_source_keeps_the_largest_channels() -> None:
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=4))
    names = [f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    half = dict(zip(names, (torch.randn(4, 3), torch.randn(4, 3), torch.randn(3, 4)), strict=True))
    half[names[2]] *= torch.tensor([1.0, 9.0, 0.0, 99.0])
    site = HalfSite(0, "ffn", block, SimpleNamespace(), half, dense_mixins(), frozenset())
    source = Magnitude(MagnitudeSettings(enabled=True, sizes=(0.5,)))
    (offer,) = source.offers(site)
    found = source.tensors(site, offer)
    assert torch.equal(found[names[1]], half[names[1]][[3, 1]])
    assert torch.equal(found[names[2]], half[names[2]][:, [3, 1]])


def test_both_costs_are_bounded_and_reported(run: Path) -> None:
    summary = summary_of(run)
    kept = sum(
        4 * (not block["attention"]["no_op"]) + 3 * (not block["ffn"]["no_op"]) for block in summary["block_configs"]
    )
    assert summary["costs"]["matrices"] == kept >= 36
    assert summary["teacher_costs"]["matrices"] == 7 * len(summary["block_configs"])
    assert summary["costs"]["processor_time"] > 0
    (bounded,) = [line for line in summary["budgets"] if line["cost"] == "processor_time"]
    assert bounded["used"] <= bounded["upper"]


def test_the_adaptation_runs_in_its_place_and_is_judged(run: Path) -> None:
    stages = [stage["name"] for stage in summary_of(run)["stages"]]
    assert stages.index("repair") + 1 == stages.index("tune_norms")
    (folder,) = (run / "stages").glob("*-tune_norms")
    result = json.loads((folder / "adapted.json").read_text())
    assert result["kept"] == (result["after"] < result["before"])
    assert result["lines"][0]["tensors"] > 0
    page = (run / "report.md").read_text()
    assert ("norms were tuned" in page) == result["kept"]
    assert "| tune_norms |" in page


def test_the_format_writes_a_checkpoint_with_its_setting(site: Path, tmp_path: Path) -> None:
    anyblock(site, tmp_path, "convert", str(TRAINED), "full", ANYBLOCK_DISABLE_PLUGINS=OFF)
    export = ["export", "full", "table", "--format", "layer-table", "--set", "separator=;"]
    anyblock(site, tmp_path, *export, ANYBLOCK_DISABLE_PLUGINS=OFF)
    heading, *lines = (tmp_path / "table" / "layers.csv").read_text().splitlines()
    assert heading == "layer;attention;ffn"
    stored = load_file(tmp_path / "full" / "subblocks_safetensors" / "block_0_attention.safetensors")
    assert lines[0].split(";")[1] == str(sum(tensor.numel() for tensor in stored.values()))
    assert len(lines) == len(json.loads((tmp_path / "full" / "config.json").read_text())["block_configs"])


def test_the_types_are_searched_and_the_format_lists_them(site: Path, run: Path, tmp_path: Path) -> None:
    child = tmp_path / "child"
    shutil.copytree(run.with_name("child"), child)
    config = json.loads((child / "config.json").read_text())  # an export infers no family
    (child / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    anyblock(site, tmp_path, "export", "child", "table", "--format", "layer-table", ANYBLOCK_DISABLE_PLUGINS=OFF)
    heading, *lines = (tmp_path / "table" / "layers.csv").read_text().splitlines()
    assert heading == "layer,attention,ffn,attention type,ffn type"
    kept = [cell for line in lines for cell in line.split(",")[1:3]]
    assert sum(line.count("int8_rows") for line in lines) >= sum(cell != "0" for cell in kept) > 0
    costs = summary_of(run)["costs"]
    tensors = [t for file in (child / "subblocks_safetensors").iterdir() for t in load_file(file).items()]
    sizes = [IntegerRows(8 if ".layers." in name else 16).nbytes(name, tensor.shape) for name, tensor in tensors]
    assert costs["bytes"] == sum(sizes)
    rounded = load_file(run / "rounded" / "subblocks_safetensors" / "block_0_attention.safetensors")
    for name, tensor in load_file(child / "subblocks_safetensors" / "block_0_attention.safetensors").items():
        assert torch.equal(IntegerRows(8).rounded(name, tensor).to(tensor.dtype), rounded[name].to(tensor.dtype))


def test_the_executor_computed_the_scores(run: Path) -> None:
    """The run of the fixture scored in children of the interpreter; without it, the scores are the same."""
    (stage,) = (run / "stages").glob("*-scores")
    written = (run / "run.yaml").read_text()
    assert "engine: child-process" in written
    assert "tasks: 4" in written
    scores = (stage / "scores.json").read_bytes()
    assert len(json.loads(scores)) > 6


def test_the_command_takes_its_own_arguments(site: Path, run: Path) -> None:
    gone = sum(block[half]["no_op"] for block in summary_of(run)["block_configs"] for half in ("attention", "ffn"))
    said = anyblock(site, run.parent, "removed", "child", ANYBLOCK_DISABLE_PLUGINS=OFF)
    assert len(said.splitlines()) == max(gone, 1)
    anyblock(site, run.parent, "removed", "child", "--any", code=int(not gone), ANYBLOCK_DISABLE_PLUGINS=OFF)


def test_a_wrong_setting_is_refused_with_its_line(site: Path, tmp_path: Path) -> None:
    """Both files are read by one interpreter."""
    shutil.copytree(TRAINED, tmp_path / "teacher")
    (tmp_path / "wrong.yaml").write_text(RUN.replace("temperature: 4.0", "temperature: warm"))
    (tmp_path / "unknown.yaml").write_text(RUN.replace("also: [rep", "also: [ref"))
    said = read(site, tmp_path, "wrong.yaml", "unknown.yaml")
    assert "wrong.yaml:12: scoring.softened_kl.temperature: input should be a valid number" in said
    assert "unknown.yaml:13: evaluation.also[0]: there is no evaluation 'refetition'" in said
    assert "did you mean 'repetition'?" in said


def test_the_guides_words_find_hook_and_mixin_too(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("anyblock_puzzletron_config")
    (tmp_path / "guide.yaml").write_text(f"""
        descriptor: llama
        input_hf_model_path: {TRAINED}
        output: child
        data: {{path: {TEXT}}}
        search: {{budget: {{params: 0.9x}}}}
        pruning:
          pruning_mixin: {{_target_: anyblock_copied_extension.blocks.CopiedBlocksPruningMixIn}}
          hook_class: ${{get_object:anyblock_copied_extension.blocks.CopiedBlockContributionHook}}
          intermediate_size_list: [9]
    """)
    said = read(site, tmp_path, "guide.yaml")
    assert json.loads(said) == {"copied_blocks": {"sizes": [9], "hook": "CopiedBlockContributionHook"}}


READ = """
import json, sys
from anyblock.config.load import load_config
from anyblock.errors import ConfigError
for name in sys.argv[1:]:
    try:
        kinds = load_config(name).pruning.kinds()
        print(json.dumps({kind: {"sizes": own.sizes, "hook": own.hook} for kind, own in kinds.items()}))
    except ConfigError as error:
        print(error)
"""


def read(site: Path, folder: Path, *files: str) -> str:
    """Return what reading these configurations gives: the kinds of pruning that they offer, or the error."""
    environment = {**os.environ, "PYTHONPATH": str(site), "ANYBLOCK_DISABLE_PLUGINS": OFF}
    done = subprocess.run(
        [sys.executable, "-c", READ, *files], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_reader_makes_a_document_of_every_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "a.paragraphs"
    path.write_text("one\n\ntwo\nlines\n\n\n")
    assert read_text(path).documents == read_text(tmp_path).documents == ["one", "two\nlines"]
