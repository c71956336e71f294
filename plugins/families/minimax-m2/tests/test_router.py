"""The router gets its correction bias as an argument; what silences an expert has to find it there."""

import torch
from anyblock import get_family
from anyblock.importance.router import silenced_experts, watch_router
from anyblock.modeling.skeleton import model_class
from torch import nn


def test_a_silenced_expert_is_not_chosen_for_its_bias() -> None:
    config = get_family("minimax_m2").conformance_config()
    sparse: nn.Module = model_class(config)._from_config(config).get_submodule("model.layers.0.mlp")
    router = sparse.get_submodule("gate")
    nn.init.normal_(router.get_parameter("weight"))
    sparse.get_buffer("e_score_correction_bias")[1] = 100.0
    hidden = torch.randn(1, 5, config.hidden_size)
    with watch_router(router, 4) as routing:
        sparse(hidden)
    assert routing.indices is not None
    assert (routing.indices == 1).any(dim=1).all()
    with silenced_experts(router, [1], 4), watch_router(router, 4) as routing:
        sparse(hidden)
    assert not (routing.indices == 1).any()
