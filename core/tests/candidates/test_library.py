"""Which candidates there are, and which sizes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock.candidates.candidate import Candidate
from anyblock.candidates.library import list_candidates
from anyblock.candidates.no_op import NoOp
from anyblock.errors import UnsupportedModelError, UsageError
from anyblock.family import get_family
from anyblock.modeling.skeleton import load_hf_config

FAMILY = get_family("llama")


def listed(llama_dir: Path, wanted: list[int], widths: tuple[int, ...] = (48, 48, 48)) -> list[str]:
    config = load_hf_config(llama_dir)
    teacher = FAMILY.create_block_configs(config)
    blocks = [block.with_ffn(intermediate_size=width) for block, width in zip(teacher, widths, strict=True)]
    sizes = {"ffn_intermediate": lambda full: [size for size in wanted if size != full]}
    return [
        candidate.key
        for candidate in list_candidates(FAMILY, config, blocks, sizes, sources={"no_op": NoOp(halves=["ffn"])})
    ]


def test_the_teachers_own_subblock_leads_each_group(llama_dir: Path) -> None:
    keys = listed(llama_dir, [12, 24])
    assert keys[:5] == [
        "block_0_attention:teacher",
        "block_0_ffn:teacher",
        "block_0_ffn:ffn_intermediate=12",
        "block_0_ffn:ffn_intermediate=24",
        "block_0_ffn:no_op",
    ]
    assert len(keys) == 15


def test_a_size_that_only_wider_layers_have_is_for_them(llama_dir: Path) -> None:
    keys = listed(llama_dir, [32], widths=(24, 48, 32))
    assert [key for key in keys if "=32" in key] == ["block_1_ffn:ffn_intermediate=32"]


def test_a_size_that_no_layer_has_is_refused(llama_dir: Path) -> None:
    with pytest.raises(UsageError, match="64"):
        listed(llama_dir, [64], widths=(24, 48, 32))


def test_a_candidate_survives_json(llama_dir: Path) -> None:
    block = FAMILY.create_block_configs(load_hf_config(llama_dir))[0]
    candidate = Candidate(0, "ffn", "ffn_intermediate", 12, block.with_ffn(intermediate_size=12))
    assert Candidate.from_dict(candidate.to_dict()) == candidate
    assert (candidate.group, candidate.label) == ("block_0_ffn", "ffn_intermediate=12")


def test_a_kind_that_changes_every_layer_at_once_is_refused(llama_dir: Path) -> None:
    config = load_hf_config(llama_dir)
    blocks = FAMILY.create_block_configs(config)
    with pytest.raises(UnsupportedModelError, match="llama has no pruning kind 'hidden_size'"):
        list_candidates(FAMILY, config, blocks, {"hidden_size": lambda full: [16]})
