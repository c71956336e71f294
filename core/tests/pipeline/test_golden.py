"""A whole run of the reference on a tiny Llama: its children, its statistics and its search, made again from its own inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import convert_model
from anyblock.candidates.candidate import NO_OP, TEACHER, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.contract.blocks import HALVES
from anyblock.costs.cost_model import Scenario, add_costs, fixed_costs, subblock_costs
from anyblock.family import get_family
from anyblock.modeling.skeleton import load_hf_config
from anyblock.search import Budget, Group, Option, Problem, solve
from safetensors.torch import load_file

pytestmark = pytest.mark.shared
FAMILY = get_family("llama")
COSINE = "cosine_embedding_loss_hidden_states"
SCENARIO = Scenario(batch_size=96, length=8192, cache_dtype="bfloat16", weight_dtype="bfloat16")


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> Path:
    return shared_dir / "golden" / "e2e_mini" / "llama_ffn" / "fp32"


@pytest.fixture(scope="module")
def teacher(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> SubblockCheckpoint:
    folder = tmp_path_factory.mktemp("golden")
    source = folder / "source"
    source.mkdir()
    (source / "config.json").write_bytes((golden / "hf_config.json").read_bytes())
    (source / "model.safetensors").write_bytes((golden / "hf_model.safetensors").read_bytes())
    return SubblockCheckpoint.open(convert_model(source, folder / "teacher"))


def candidate(teacher: SubblockCheckpoint, layer: int, half: str, config: dict[str, Any]) -> Candidate:
    """Our candidate for the reference's config of a half."""
    block = teacher.block_configs[layer]
    if config["no_op"]:
        return Candidate(layer, half, NO_OP, 0, block.with_half(half, no_op=True))  # type: ignore[arg-type]
    width = config.get("intermediate_size")
    if half == "attention" or width == block.ffn.intermediate_size:
        return Candidate(layer, half, TEACHER, 0, block)  # type: ignore[arg-type]
    return Candidate(layer, "ffn", "ffn_intermediate", width, block.with_ffn(intermediate_size=width))


def costs_of(teacher: SubblockCheckpoint, wanted: Candidate) -> dict[str, float]:
    config, shapes = load_hf_config(teacher.path), teacher.meta(wanted.group)
    own = CandidateWeights(teacher, FAMILY, config, {}).shapes(wanted, shapes)
    return subblock_costs(FAMILY, config, wanted.block_config, wanted.layer, wanted.half, own, SCENARIO)


@pytest.mark.parametrize("size", [32, 64])
def test_children_equal_the_references(golden: Path, teacher: SubblockCheckpoint, size: int) -> None:
    """From its scores; every tensor of a narrower ffn, bit for bit."""
    found = load_file(golden / "activation_scores.safetensors")
    scores = {int(name.split("layers.")[1].split(".")[0]): t for name, t in found.items() if name.endswith("|score")}
    orders = {(layer, "ffn_intermediate"): (-own.double()).argsort(stable=True) for layer, own in scores.items()}
    assert set(scores) == {0, 1}
    weights = CandidateWeights(teacher, FAMILY, load_hf_config(teacher.path), orders)
    theirs = load_file(golden / f"pruned_ffn_{size}_attn_no_op.safetensors")
    compared = 0
    for layer in range(2):
        wanted = candidate(teacher, layer, "ffn", {"no_op": False, "intermediate_size": size})
        for name, tensor in weights.subblock(wanted).items():
            if name in theirs:
                compared += 1
                assert torch.equal(tensor, theirs[name]), name
    assert compared >= 6


def statistics(golden: Path) -> dict[str, Any]:
    """The reference's statistics of its scenario in bfloat16 with 96 sequences, in which an attention's cache takes 96 MiB."""
    found = json.loads((golden / "subblock_stats.json").read_text())
    (mine,) = [
        stats
        for stats in found
        if stats["non_block"]["memory_mib"] * 2**20 == 2 * stats["non_block"]["num_params"]
        and any(row["kv_cache_memory_mib"] == 96 for row in stats["subblocks"])
    ]
    assert len(mine["subblocks"]) == 12
    return dict(mine)


def half_of(row: dict[str, Any]) -> str:
    return "attention" if row["subblock_config_class"] == "AttentionConfig" else "ffn"


def test_costs_equal_the_references_but_for_the_width_of_a_head(golden: Path, teacher: SubblockCheckpoint) -> None:
    """Its cache has heads of hidden / heads = 8 entries; the model's have 16, as its config says (defect 11)."""
    config, mine = load_hf_config(teacher.path), statistics(golden)
    wrong = config.hidden_size // config.num_attention_heads
    assert (config.head_dim, wrong) == (16, 8)
    for row in mine["subblocks"]:
        wanted = candidate(teacher, row["parent_layer_index"], half_of(row), row["subblock_config"])
        costs = costs_of(teacher, wanted)
        assert costs["params"] == row["num_params"]
        assert costs["active_params"] == row["active_params"]
        theirs = row["memory_mib"] - row["kv_cache_memory_mib"]
        assert costs["weight_memory"] == pytest.approx(theirs * 2**20, abs=0.5)
        assert costs["kv_memory"] == row["kv_cache_memory_mib"] * 2**20 * config.head_dim / wrong
    shapes = {group: teacher.meta(group) for group in teacher.groups}
    outside = fixed_costs(FAMILY, config, shapes, 2, SCENARIO)
    assert outside["params"] == mine["non_block"]["num_params"]
    assert outside["memory"] == mine["non_block"]["memory_mib"] * 2**20


def test_the_search_finds_what_the_reference_finds(golden: Path, teacher: SubblockCheckpoint) -> None:
    """With its candidates, whole layers, its scores and its costs, under each of its three sets of budgets."""
    stats = statistics(golden)
    costs: dict[tuple[int, str, Any], dict[str, float]] = {
        (
            row["parent_layer_index"],
            half_of(row),
            row["subblock_config"].get("intermediate_size") or row["subblock_config"]["no_op"],
        ): {
            "params": row["num_params"],
            "memory": row["memory_mib"],
        }
        for row in stats["subblocks"]
    }
    singles = json.loads((golden / "single_sequence_replacement_solutions.json").read_text())
    scores = json.loads((golden / "scoring.json").read_text())
    results = json.loads((golden / "mip.json").read_text())
    groups = []
    for layer in range(2):
        own = teacher.block_configs[layer].to_dict()
        rows = [({half: own[half] for half in HALVES}, 0.0)]
        for index, single in enumerate(singles):
            replaced = single["single_sequence_replacement"]
            if replaced["parent_layer_indices"] == [layer]:
                rows.append((replaced["child_block_configs"][0], scores[f"solution_{index}"][COSINE]["avg"]))
        assert len(rows) == 8
        options = []
        for config, score in rows:
            attention, ffn = config["attention"]["no_op"], config["ffn"].get("intermediate_size") or True
            parts = [costs[layer, "attention", attention], costs[layer, "ffn", ffn]]
            options.append(Option(f"{attention}, {ffn}", score, add_costs(parts)))
        groups.append(Group(f"block_{layer}", tuple(options), "block"))
    fixed = {"params": stats["non_block"]["num_params"], "memory": stats["non_block"]["memory_mib"]}
    params, memory = (lambda value: Budget("params", upper=value)), (lambda value: Budget("memory", upper=value))
    asked = {
        "num_params_76_838K": [params(76838)],
        "num_params_94_092K-target_memory_115_318MiB": [params(94092), memory(115.318)],
        "target_memory_144_147MiB": [memory(144.147)],
    }
    assert {f"puzzle_solutions/{name}" for name in asked} == results.keys()
    for name, budgets in asked.items():
        (theirs,) = results[f"puzzle_solutions/{name}"]["solutions"]
        mine = solve(Problem(tuple(groups), tuple(budgets), fixed))
        assert mine.status == "proven"
        assert mine.score == pytest.approx(theirs["total_value"][f"metrics.{COSINE}"])
        assert mine.costs["params"] == theirs["total_costs"]["stats.num_params"]
        assert mine.costs["memory"] == pytest.approx(theirs["total_costs"]["stats.memory_mib"])
        chosen = theirs["chosen_block_configs"]
        expected = [f"{block['attention']['no_op']}, {block['ffn']['intermediate_size']}" for block in chosen]
        assert [mine.choices[f"block_{layer}"] for layer in range(2)] == expected
