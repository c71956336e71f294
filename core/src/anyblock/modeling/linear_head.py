"""Whether a model's logits are a linear map of its final hidden states, and nothing more."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from anyblock.modeling.layerwise import LayerwiseModel


@torch.no_grad()
def find_linear_head(engine: LayerwiseModel) -> nn.Linear | None:
    """Return the linear module that turns the output of the final norm into logits; None where more is done or not all is known.

    That no scaling, capping or masking follows is tried: large random numbers stand for the final norm's output, and the logits
    that the stock tail makes of them have to be the head's own.
    """
    norm = engine.family.final_norm_name()
    head = engine.model.get_submodule(engine.family.output_embedding_name())
    if not norm or type(head) is not nn.Linear:
        return None
    batch = engine.prepare(torch.zeros(1, 2, dtype=torch.long))
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(1, 2, head.in_features, generator=generator).to(engine.device, head.weight.dtype)
    # Large enough for any capping to show.
    final *= 1e3 / head(final).abs().max()

    def stand_in(*_: Any) -> torch.Tensor:
        return final

    handle = engine.model.get_submodule(norm).register_forward_hook(stand_in)
    try:
        logits = engine.logits(batch.hidden, batch)
    finally:
        handle.remove()
    expected = head(final)
    if logits.shape != expected.shape:
        return None
    return head if float((logits - expected).abs().max()) <= 1e3 * 16 * torch.finfo(logits.dtype).eps else None
