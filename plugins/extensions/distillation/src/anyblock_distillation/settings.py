"""The `distillation` section: training of the child against its teacher, off unless it is asked for."""

from __future__ import annotations

from anyblock.contract.settings import Positive, Section
from pydantic import Field


class BlockDistillationConfig(Section):
    """Block-local distillation: every changed layer is trained by itself to give the teacher's output of that layer."""

    enabled: bool = Field(default=False, description="Train the changed layers one by one, after the repair.")
    epochs: Positive = Field(default=2, description="Passes over the calibration text, at most.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of AdamW, at its height; it falls to 0 by a cosine.")
    batch_size: Positive = Field(default=1, description="Sequences in one training step.")


class ModelDistillationConfig(Section):
    """Whole-model distillation: all layers together, against the teacher's predictions and final hidden states."""

    enabled: bool = Field(default=False, description="Train all layers together, last of all.")
    epochs: Positive = Field(default=1, description="Passes over the calibration text, at most.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Of AdamW, at its height; it falls to 0 by a cosine.")
    batch_size: Positive = Field(default=1, description="Sequences in one training step.")
    cosine_weight: float = Field(
        default=1.0, ge=0, description="Weight of 1 - cosine of the final hidden states, added to the KL divergence."
    )
