"""A child that was trained and saved into its own folder, as the output and as the input of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.config import RunConfig
from anyblock.costs.cost_model import Scenario
from anyblock.errors import OutputExistsError
from anyblock.modeling.load import load_model
from anyblock.pipeline.compress import compress
from anyblock.pipeline.inspection import inspect_model
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.usefixtures("auto_classes")


def run(settings: dict[str, Any], **changes: Any) -> Path:
    compress(RunConfig.model_validate(settings | changes))
    return Path((settings | changes)["output"])


@pytest.mark.parametrize("load", [load_model, AutoModelForCausalLM.from_pretrained])
def test_it_is_not_replaced_by_its_run_and_can_be_compressed_again(
    settings: dict[str, Any], load: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    child = run(settings)
    model = load(child)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        trained = model(ids).logits
        model.save_pretrained(child)
        with pytest.raises(OutputExistsError):
            run(settings)
        assert torch.equal(load_model(child)(ids).logits, trained)

        search = settings["search"] | {"budget": {"params": "0.8x"}, "refine_rounds": 0}
        grandchild = run(settings, model=str(child), output=str(tmp_path / "grandchild"), search=search)
        teacher = load_model(tmp_path / "grandchild.run" / "teacher")
        assert torch.equal(teacher(ids).logits, trained)
        before, after = (inspect_model(path, Scenario()) for path in (child, grandchild))
        assert after.costs.total["params"] <= 0.8 * before.costs.total["params"]
        assert after.block_configs != before.block_configs
        assert not {"anyblock_layers", "auto_map"} & SubblockCheckpoint.open(grandchild).config.keys()
        loaded = AutoModelForCausalLM.from_pretrained(grandchild)
        assert torch.equal(loaded(ids).logits, load_model(grandchild)(ids).logits)
