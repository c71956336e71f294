"""The configuration of `nemotron_h_puzzle` checkpoints, which transformers does not have; it goes along with an export.

vLLM asks it for the configuration of every layer, and reads that as the one of a plain Nemotron-H.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import NemotronHConfig


class NemotronHPuzzleConfig(NemotronHConfig):  # type: ignore[misc]
    """A Nemotron-H's configuration with `block_configs`, one per layer: its `block_type`, and sizes by their usual names."""

    model_type = "nemotron_h_puzzle"

    def get_nemotron_h_config_for_layer(self, layer_idx: int) -> Any:
        """Return the configuration of one layer; those that predict further tokens come after the last one."""
        config = copy.copy(self)
        for name, value in [*self.block_configs, *(self.mtp_block_configs or ())][layer_idx].items():
            setattr(config, name, value)
        return config

    @property
    def mtp_n_routed_experts(self) -> int:
        """The experts in a layer that predicts further tokens."""
        return max(int(block.get("n_routed_experts", 0)) for block in self.mtp_block_configs)
