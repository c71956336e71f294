"""One test for each known defect of the reference's runs (the numbers of its defect list); each fails on its behaviour."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from anyblock import load_model
from anyblock.config import RunConfig
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.contract.cache_spec import CacheSpec
from anyblock.contract.hookspecs import hookimpl
from anyblock.costs.cost_model import Scenario, subblock_costs
from anyblock.descriptors import DenseDescriptor
from anyblock.family import ModelFamily
from anyblock.pipeline.compress import compress
from anyblock.run.run_folder import RunFolder
from anyblock.stages.scores import read_scores
from safetensors.torch import load_file

WIDTHS = {"ffn": {"sizes": [24], "no_op": False}, "attention": {"no_op": False}, "repair": {"method": "none"}}


def run(settings: dict[str, Any], **changes: Any) -> Any:
    return compress(RunConfig.model_validate({**settings, **changes}), overwrite=True)


def test_05_every_layer_is_chosen_from_by_its_own_scores(settings: dict[str, Any]) -> None:
    """The reference keeps what one layer's scores say in all layers, where it reads scores from a file."""
    result = run(settings, pruning=WIDTHS, search={"budget": {"ffn_layers": 3, "params": "0.81x"}, "refine_rounds": 0})
    kept = json.loads((result.child.path / "anyblock.json").read_text())["kept_units"]
    scores = load_file(RunFolder(result.run).result("importance", "scores.safetensors"))
    assert set(kept) == {f"block_{layer}_ffn" for layer in range(3)}
    for layer in range(3):
        own = scores[f"{layer}|ffn_intermediate|IterativeChannelContributionHook"]
        assert kept[f"block_{layer}_ffn"]["units"] == (-own).argsort(stable=True)[:24].tolist()
    assert len({tuple(sorted(found["units"])) for found in kept.values()}) == 3


def test_13_what_the_family_says_of_a_layer_decides_about_its_costs() -> None:
    """The reference asks the base class which layers are of which kind, and never the family's own answer."""

    class Own(DenseDescriptor):
        decoder_layer = "torch.nn.Identity"

        @hookimpl
        def cache_spec(self, config: Any, block_config: BlockConfig, layer_index: int) -> CacheSpec:
            return CacheSpec(per_token=10 * (layer_index + 1), window=4)

    family = ModelFamily.from_descriptor(Own, model_type="own")
    block = BlockConfig(attention=AttentionConfig(num_key_value_heads=2), ffn=FFNConfig(intermediate_size=8))
    config = SimpleNamespace(head_dim=4, num_hidden_layers=2)
    scenario = Scenario(batch_size=3, length=100)
    found = [subblock_costs(family, config, block, layer, "attention", {}, scenario)["kv_memory"] for layer in (0, 1)]
    assert found == [3 * 10 * 4 * 2, 3 * 20 * 4 * 2]


def test_19_the_child_is_written_without_an_evaluation(settings: dict[str, Any], ids: torch.Tensor) -> None:
    """The reference's model is not defined when it is to be saved and not validated, and nothing can be realised from links."""
    result = run(settings, evaluation={"enabled": False})
    assert result.evaluation is None
    child = load_model(result.child.path)
    assert torch.isfinite(child(ids).logits).all()
    assert not any(path.is_symlink() for path in Path(settings["output"]).rglob("*"))


def test_22_scores_belong_to_candidates_and_not_to_places_in_a_list(settings: dict[str, Any], tmp_path: Path) -> None:
    """The reference skips solutions by their number: with other candidates it goes on with the scores of the former ones."""
    exact = {"method": "exact"}
    first = run(settings, pruning={"ffn": {"sizes": [0.25, 0.5]}}, scoring=exact)
    before = read_scores(RunFolder.open(first.run))
    changed = {"ffn": {"sizes": [12, 36]}}
    again = read_scores(RunFolder.open(run(settings, pruning=changed, scoring=exact).run))
    fresh = {**settings, "output": str(tmp_path / "fresh")}
    assert again == read_scores(RunFolder.open(run(fresh, pruning=changed, scoring=exact).run))
    assert again.keys() != before.keys()


def test_24_a_finished_run_can_be_run_again(settings: dict[str, Any]) -> None:
    """The reference stops at statistics that are there already."""
    first = run(settings)
    again = run(settings)
    assert again.solution.choices == first.solution.choices
    assert all(stage.reused for stage in again.summary.stages)
