"""The written child: what is copied, what is cut, and that it equals the masked teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.errors import ExecutionError, OutputExistsError
from anyblock.family import get_family
from anyblock.modeling.load import load_model
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import inputs_hash_of, realize

FAMILY = get_family("llama")


@pytest.fixture
def teacher(teacher_dir: Path) -> SubblockCheckpoint:
    return SubblockCheckpoint.open(teacher_dir)


def candidates(teacher: SubblockCheckpoint) -> list[Candidate]:
    config = load_hf_config(teacher.path)
    sizes = {"ffn_intermediate": lambda full: [12, 24], "query_groups": lambda full: [1]}
    return list_candidates(FAMILY, config, teacher.block_configs, sizes, sources={"no_op": NoOp()})


def pick(teacher: SubblockCheckpoint, *keys: str) -> list[Candidate]:
    return [next(c for c in candidates(teacher) if c.key == key) for key in keys]


def weights(teacher: SubblockCheckpoint) -> CandidateWeights:
    orders = {(0, "ffn_intermediate"): torch.arange(47, -1, -1), (1, "query_groups"): torch.tensor([1, 0])}
    return CandidateWeights(teacher, FAMILY, load_hf_config(teacher.path), orders)


def test_a_mixed_child_equals_the_masked_teacher(
    teacher: SubblockCheckpoint, tmp_path: Path, ids: torch.Tensor
) -> None:
    chosen = pick(
        teacher,
        "block_0_ffn:ffn_intermediate=12",
        "block_1_attention:query_groups=1",
        "block_2_attention:no_op",
        "block_2_ffn:no_op",
    )
    child = load_model(realize(teacher, chosen, weights(teacher), tmp_path / "child"))
    masked = load_model(teacher.path)
    with torch.no_grad():
        down = masked.model.layers[0].mlp.down_proj.weight.clone()
        down[:, :36] = 0  # the order is reversed, so the last 12 of 48 channels stay
        masked.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(down)
        out = masked.model.layers[1].self_attn.o_proj.weight.clone()
        out[:, :16] = 0  # key-value head 0 with its two query heads of width 8
        masked.model.layers[1].self_attn.o_proj.weight = torch.nn.Parameter(out)
        last = masked.model.layers[2]
        for linear in (last.self_attn.o_proj, last.mlp.down_proj):
            linear.weight = torch.nn.Parameter(torch.zeros_like(linear.weight))
            linear.bias = torch.nn.Parameter(torch.zeros_like(linear.bias))
        torch.testing.assert_close(child(ids).logits, masked(ids).logits, atol=1e-5, rtol=1e-5)


def test_unchanged_groups_are_copied_and_the_record_says_what_was_kept(
    teacher: SubblockCheckpoint, tmp_path: Path
) -> None:
    chosen = pick(teacher, "block_0_ffn:ffn_intermediate=12", "block_1_attention:query_groups=1")
    path = realize(teacher, chosen, weights(teacher), tmp_path / "child", inputs_hash="abc")
    child = SubblockCheckpoint.open(path)
    changed = {"block_0_ffn", "block_1_attention"}
    for group in teacher.groups:
        mine, theirs = child.load(group), teacher.load(group)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine) == (group not in changed)
    record = json.loads((path / "anyblock.json").read_text())
    assert record["kept_units"]["block_0_ffn"] == {"kind": "ffn_intermediate", "units": list(range(47, 35, -1))}
    assert record["kept_units"]["block_1_attention"] == {"kind": "query_groups", "units": [1]}
    assert inputs_hash_of(path) == "abc"
    assert inputs_hash_of(tmp_path) is None


def test_repaired_tensors_replace_the_candidates_own(teacher: SubblockCheckpoint, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    repaired = {name: torch.full((32, 12), 0.5)}
    chosen = pick(teacher, "block_0_ffn:ffn_intermediate=12")
    child = SubblockCheckpoint.open(realize(teacher, chosen, weights(teacher), tmp_path / "child", repaired=repaired))
    assert torch.equal(child.load("block_0_ffn")[name], repaired[name])


def test_an_existing_output_is_kept_and_a_failure_leaves_nothing(teacher: SubblockCheckpoint, tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "precious").write_text("x")
    chosen = pick(teacher, "block_0_ffn:ffn_intermediate=12")
    with pytest.raises(OutputExistsError):
        realize(teacher, chosen, weights(teacher), tmp_path / "child")
    assert (tmp_path / "child" / "precious").read_text() == "x"
    wrong = CandidateWeights(
        teacher, FAMILY, load_hf_config(teacher.path), {(0, "ffn_intermediate"): torch.zeros(48, dtype=torch.long)}
    )
    with pytest.raises(ExecutionError, match="not a permutation"):
        realize(teacher, chosen, wrong, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child"]
