"""Removing experts from ERNIE 4.5, for whose router a bias of minus infinity is not enough."""

from __future__ import annotations

from typing import Any

import torch
from anyblock.contract.blocks import BlockConfig
from anyblock.contract.tensor_select import Tensors
from anyblock.descriptors.mixins import ExpertRemovalPruningMixIn
from anyblock.errors import UnsupportedModelError


class Ernie45ExpertRemovalPruningMixIn(ExpertRemovalPruningMixIn):
    """The removal of experts whose router adds its bias to shares among *all* experts.

    A child's shares are those among its own, so the teacher without the removed experts has to leave their logits out.
    """

    def mask(
        self, layer_index: int, tensors: Tensors, block: BlockConfig, child: BlockConfig, config: Any
    ) -> dict[str, torch.Tensor]:
        """See `PruningMixIn.mask`.

        Raises:
            UnsupportedModelError: always, no weight silences an expert.
        """
        raise UnsupportedModelError(
            f"{self.kind}: the router of layer {layer_index} adds its bias to shares among all experts",
            expected="a router that an expert's bias silences",
            hint="run the teacher within anyblock.importance.router.silenced_experts instead",
        )
