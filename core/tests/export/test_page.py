"""The page about exports: every command and every piece of Python on it is run, in its order, in one folder."""

from __future__ import annotations

import shutil

from anyblock import get_family
from anyblock.candidates.candidate import NO_OP, Candidate
from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.extensions import installed_extensions
from anyblock.modeling.skeleton import load_hf_config
from anyblock.realize.realize import realize
from anyblock_tests.pages import DOCS, run_page


def formats() -> set[str]:
    """The formats of core and the extensions, but for the one that is an example."""
    found = installed_extensions()
    origins = found.origins("formats")
    return {name for name in found.export_formats() if origins[name].distribution != "anyblock-example-extension"}


def test_everything_on_the_page_runs(trained_dir, tmp_path, monkeypatch):
    teacher = SubblockCheckpoint.open(trained_dir)
    removed = [Candidate(2, "ffn", NO_OP, 0, teacher.block_configs[2].with_ffn(no_op=True))]
    weights = CandidateWeights(teacher, get_family("llama"), load_hf_config(trained_dir), {})
    shutil.copytree(realize(teacher, removed, weights, tmp_path / "made"), tmp_path / "child")
    (tmp_path / "text.txt").write_text("Once upon a time there was a tree.\n" * 400)
    few = "data.block_size=64 data.calibration_tokens=1024 data.scoring_tokens=128 data.evaluation_tokens=128"
    meant = {
        "MODEL": str(trained_dir),
        "bytes=0.3x": "bytes=0.5x",
        "text.txt": f"text.txt {few} search.refine_rounds=0",
    }
    commands = run_page("export.md", tmp_path, monkeypatch, meant)
    others = {"nemotron_h_puzzle"}  # which cannot hold a Llama, and has tests of its own
    assert {command.rpartition(" ")[2] for command in commands} >= formats() - others


def test_the_page_lists_every_format():
    text = (DOCS / "export.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in formats())
