"""What the vote over experts takes for a router's preferences is what the router of every family chooses by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import get_family, load_model
from anyblock.extensions import installed_plugins
from anyblock.importance.router import choice_scores, find_router
from anyblock_conformance.tiny import random_tokens, save_tiny

FAMILIES = [
    name
    for name in installed_plugins().model_types
    if name != "example" and get_family(name).supports("experts_removal")
]


def test_there_are_families_with_experts() -> None:
    assert len(FAMILIES) >= 8


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_router_chooses_the_experts_that_it_is_said_to_prefer(model_type: str, tmp_path: Path) -> None:
    family = get_family(model_type)
    config = family.conformance_config()
    text = family.language_model_config(config)
    for limit in ("n_group", "topk_group"):  # which groups a token may choose from is not a preference
        if getattr(text, limit, None):
            setattr(text, limit, 1)
    model = load_model(save_tiny(config, tmp_path / "source"))
    blocks = family.create_block_configs(config)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for index, block in enumerate(blocks):
        if block.ffn.moe is None:
            continue
        layer = model.get_submodule(family.layer_block_name(index))
        router = next(found for module in layer.modules() if (found := router_of(module)) is not None)

        def note(
            module: Any, args: Any, kwargs: Any, output: Any, experts: int = block.ffn.moe.num_local_experts
        ) -> None:
            values = output if isinstance(output, tuple) else ()
            chosen = [value for value in values if isinstance(value, torch.Tensor) and not value.is_floating_point()]
            seen.extend((choice_scores(module, args, kwargs, output, experts), value) for value in chosen)

        router.register_forward_hook(note, with_kwargs=True)
    with torch.no_grad():
        model(input_ids=random_tokens(text.vocab_size, 2, 24, seed=3))
    if not seen:
        pytest.skip("the routers of this family only score; the ffn around them chooses")
    for scores, chosen in seen:
        best = scores.topk(chosen.shape[-1], dim=1).indices
        assert torch.equal(best.sort(dim=1).values, chosen.reshape(best.shape).sort(dim=1).values)


def router_of(module: torch.nn.Module) -> torch.nn.Module | None:
    if not hasattr(module, "experts"):
        return None
    return find_router(module)
