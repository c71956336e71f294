"""The hidden size through the whole of `compress`: budgets, costs, config, kept channels, resuming and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig, load_config
from anyblock.errors import BudgetError, ConfigError, UsageError
from anyblock.evaluation.evaluate import evaluate
from anyblock.family import get_family
from anyblock.modeling.load import load_model
from anyblock.pipeline.compress import compress
from anyblock.pipeline.saved_search import search_run
from anyblock.run.run_folder import RunFolder
from anyblock.stages.refine import read_refinement

HIDDEN, NARROW = 32, 20
NOTHING_ELSE = {"ffn": {"sizes": [], "no_op": False}, "attention": {"no_op": False}, "repair": {"method": "none"}}


@pytest.fixture(params=["untied", "tied"])
def model_dir(request: pytest.FixtureRequest, llama_dir: Path, tmp_path: Path) -> Path:
    """The tiny Llama with a norm epsilon near 0, up to which a child and the masked teacher agree."""
    model = load_model(llama_dir)
    model.config.rms_norm_eps = 1e-12
    model.config.tie_word_embeddings = request.param == "tied"
    if request.param == "tied":
        model.tie_weights()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((llama_dir / name).read_bytes())
    return folder


def narrowed(settings: dict[str, Any], model: Path, budget: dict[str, str], **pruning: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            **settings,
            "model": str(model),
            "dtype": "float32",
            "pruning": {**NOTHING_ELSE, "hidden_size": {"sizes": [NARROW]}, **pruning},
            "search": {**settings["search"], "budget": budget},
        }
    )


def masked_logits(run: Path, child: Path, ids: torch.Tensor) -> torch.Tensor:
    """What the teacher says with every unit silenced that the child's record does not list."""
    teacher = SubblockCheckpoint.open(run / "teacher")
    family, model = get_family("llama"), load_model(run / "teacher")
    kept = json.loads((child / "anyblock.json").read_text())["kept_units"]
    blocks = SubblockCheckpoint.open(child).block_configs
    stream = family.residual_stream()
    assert stream is not None
    assert kept["model"]["kind"] == "hidden_size"
    tensors: dict[str, torch.Tensor] = {}
    for group in teacher.groups:
        found = teacher.load(group)
        if group in kept:
            mixin, layer = family.pruning_mixins()[kept[group]["kind"]], int(group.split("_")[1])
            full = teacher.block_configs[layer]
            found = mixin.sort(layer, found, full, order_of(kept[group], mixin.size(full)), model.config)
            found = mixin.mask(layer, found, full, blocks[layer], model.config)
        tensors.update(stream.mask(stream.sort(found, order_of(kept["model"], HIDDEN)), NARROW))
    state = {**model.state_dict(), **tensors}
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


def order_of(record: dict[str, Any], units: int) -> torch.Tensor:
    """The kept units of a record, then the others."""
    return torch.tensor(record["units"] + sorted(set(range(units)) - set(record["units"])))


@pytest.mark.parametrize(
    "pruning", [{}, {"ffn": {"sizes": [24], "no_op": False}, "kv_heads": {"sizes": [1]}}], ids=["alone", "with others"]
)
def test_the_child_is_the_masked_teacher(
    settings: dict[str, Any], model_dir: Path, ids: torch.Tensor, pruning: dict[str, Any]
) -> None:
    budget = {"params": "0.5x", "kv_memory": "0.9x"} if pruning else {"params": "0.7x"}
    result = compress(narrowed(settings, model_dir, budget, **pruning))
    child = load_model(settings["output"])
    wanted = masked_logits(result.run, Path(settings["output"]), ids)
    with torch.no_grad():
        logits = child(ids).logits
        teacher = load_model(model_dir)(ids).logits
        usual = load_model(settings["output"], attn_implementation="eager")(ids).logits
    assert (logits - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert (usual - logits).abs().max() < 1e-4 * wanted.abs().max()
    assert (logits - teacher).abs().max() > 0.1 * teacher.abs().max()

    # The configuration, the record and the costs say what the files hold.
    config = json.loads((Path(settings["output"]) / "config.json").read_text())
    assert (config["hidden_size"], config["head_dim"]) == (NARROW, 8)
    kept = json.loads((Path(settings["output"]) / "anyblock.json").read_text())["kept_units"]
    assert len(set(kept["model"]["units"])) == NARROW
    assert (set(kept) > {"model"}) == bool(pruning)
    counted = [sum(p.numel() for p in load_model(path).parameters()) for path in (model_dir, settings["output"])]
    summary = result.summary
    assert summary.teacher_costs is not None
    assert summary.costs is not None
    assert [summary.teacher_costs["params"], summary.costs["params"]] == counted
    assert counted[1] <= (0.5 if pruning else 0.7) * counted[0]
    assert any(f"cut from {HIDDEN} to {NARROW}" in note for note in summary.notes)
    assert f"cut from {HIDDEN} to {NARROW}" in (result.run / "report.md").read_text()


def test_channels_are_kept_by_their_importance(settings: dict[str, Any], model_dir: Path) -> None:
    from safetensors.torch import load_file

    result = compress(narrowed(settings, model_dir, {"params": "0.7x"}))
    scores = load_file(RunFolder(result.run).result("importance", "scores.safetensors"))
    total = sum(scores[f"{layer}|hidden_size|LayerNormContributionHook"].double() for layer in range(3))
    kept = json.loads((Path(settings["output"]) / "anyblock.json").read_text())["kept_units"]["model"]["units"]
    assert kept == torch.as_tensor(total).argsort(descending=True)[:NARROW].tolist()


def test_quality_is_measured_against_the_model_as_it_was_given(settings: dict[str, Any], model_dir: Path) -> None:
    config = narrowed(settings, model_dir, {"params": "0.4x"}, ffn={"sizes": [0.25, 0.5]}, attention={"no_op": True})
    result = compress(config)
    assert result.evaluation is not None
    again = evaluate(
        settings["output"],
        data=_tokens(result.run, "evaluation"),
        teacher=model_dir,
        batch_size=settings["data"]["batch_size"],
    )
    assert result.evaluation.kl_per_token == pytest.approx(again.kl_per_token, rel=1e-4)
    steps = read_refinement(RunFolder(result.run))
    assert result.solution.score > 0
    unrepaired = evaluate(settings["output"], data=_tokens(result.run, "scoring"), teacher=model_dir, batch_size=4)
    assert result.solution.score == pytest.approx(unrepaired.kl_per_token, rel=1e-3), steps


def _tokens(run: Path, part: str) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(RunFolder(run).result("data", "tokens.safetensors"))[part]


def test_a_run_is_continued_and_searched_again(settings: dict[str, Any], model_dir: Path) -> None:
    first = narrowed(settings, model_dir, {"params": "0.7x"}, ffn={"sizes": [0.25, 0.5]})
    result = compress(first)
    before = SubblockCheckpoint.open(settings["output"]).fingerprint()
    assert all(stage.reused for stage in compress(first).summary.stages)
    found = search_run(result.run, ["params=0.5x"])
    teacher = result.summary.teacher_costs or {}
    assert found.solutions[0].costs["params"] <= 0.5 * teacher["params"]
    (result.run / "narrowed" / "subblocks_safetensors" / "embeddings.safetensors").unlink()
    again = compress(first)
    assert {stage.name for stage in again.summary.stages if not stage.reused} == {"hidden-size"}
    assert SubblockCheckpoint.open(settings["output"]).fingerprint() == before
    other = first.model_dump(mode="json")
    other["pruning"]["hidden_size"]["sizes"] = [16]
    third = compress(RunConfig.model_validate(other), overwrite=True)
    reran = {stage.name for stage in third.summary.stages if not stage.reused}
    assert "importance" not in reran, "the sweep does not depend on the size"
    assert {"hidden-size", "search", "child", "evaluation"} <= reran
    assert load_model(settings["output"]).config.hidden_size == 16


def test_a_child_can_be_the_teacher_of_the_next_run(settings: dict[str, Any], model_dir: Path, tmp_path: Path) -> None:
    compress(narrowed(settings, model_dir, {"params": "0.7x"}))
    config = narrowed({**settings, "output": str(tmp_path / "next")}, Path(settings["output"]), {"params": "0.95x"})
    smaller = config.model_copy(
        update={
            "pruning": config.pruning.model_copy(update={"hidden_size": type(config.pruning.hidden_size)(sizes=(12,))})
        }
    )
    compress(smaller)
    child = load_model(tmp_path / "next")
    assert (child.config.hidden_size, child.config.head_dim) == (12, 8)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [([33], UsageError, "33 is not possible"), ([20, 16], ConfigError, r"run\.yaml:\d+.*has 2 sizes")],
)
def test_sizes_that_cannot_be_are_refused(
    settings: dict[str, Any], llama_dir: Path, tmp_path: Path, sizes: list[int], error: type[Exception], message: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"model: {llama_dir}\noutput: {tmp_path / 'child'}\ndata: {{path: {settings['data']['path']}}}\n"
        f"search:\n  budget: {{params: 0.9x}}\npruning:\n  hidden_size: {{sizes: {sizes}}}\n"
    )
    with pytest.raises(error, match=message):
        compress(load_config(file))
    assert not (tmp_path / "child.run").exists()


def test_a_budget_below_what_the_size_leaves_is_refused(settings: dict[str, Any], llama_dir: Path) -> None:
    with pytest.raises(BudgetError, match="smallest"):
        compress(narrowed(settings, llama_dir, {"params": "0.3x"}))
    assert not Path(f"{settings['output']}.run").exists()
