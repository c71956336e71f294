"""Granite 4 without routed experts: the shared MLP is a dense FFN."""

from pathlib import Path

import pytest
from anyblock import get_family
from anyblock_conformance.run import run_checkpoint
from anyblock_conformance.tiny import save_tiny


@pytest.mark.slow
def test_a_model_without_routed_experts_converts_and_loses_either_half(tmp_path: Path) -> None:
    family = get_family("granitemoehybrid")
    config = family.conformance_config()
    config.num_local_experts = 0
    assert {block.ffn.intermediate_size for block in family.create_block_configs(config)} == {24}
    report = run_checkpoint(save_tiny(config, tmp_path / "micro"), full=True, levels=["convert", "build"])
    assert [result.id for result in report.results if result.outcome.is_failure] == []
    assert "build.no-op" in {result.id.partition("[")[0] for result in report.results if result.outcome == "passed"}
