"""A stage that adapts the child's weights: its norms are tuned to the teacher's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anyblock.contract.adaptation import Adaptation, AdaptationSettings, ChosenChild
from anyblock.contract.settings import Section
from pydantic import Field

if TYPE_CHECKING:
    import torch


class NormTuningSettings(AdaptationSettings):
    """Settings of the adaptation `tune_norms`."""

    steps: int = Field(default=20, ge=1, description="Gradient steps, one sequence of the calibration text each.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Of Adam.")


class NormTuning(Adaptation):
    """Trains the weights of the norms in the layers, and nothing else, by the KL divergence from the teacher."""

    summary: ClassVar[str] = "tunes the norms of the child to the teacher's predictions"
    order: ClassVar[int] = 150
    settings: ClassVar[type[Section]] = NormTuningSettings

    def run(
        self, child: ChosenChild, given: Mapping[str, torch.Tensor], folder: Path
    ) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
        """See `Adaptation.run`."""
        import torch

        model, teacher = child.model(given), child.teacher()
        norms = {name: value for name, value in model.named_parameters() if value.dim() == 1 and ".layers." in name}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in norms.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(norms.values(), lr=self.settings_given.learning_rate)
        losses = []
        with child.progress.task("Tuning norms", total=self.settings_given.steps, unit="steps") as advance:
            for step in range(self.settings_given.steps):
                ids = child.fit_ids[step % len(child.fit_ids)][None].to(next(iter(norms.values())).device)
                with torch.no_grad():
                    wanted = teacher(input_ids=ids).logits.float().log_softmax(-1)
                found = model(input_ids=ids).logits.float().log_softmax(-1)
                loss = (wanted.exp() * (wanted - found)).sum(-1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss))
                advance(1)
        tuned = {name: tensor for name, tensor in child.tensors_of(model).items() if tensor.dim() == 1}
        return {**given, **tuned}, [{"tensors": len(tuned), "first": losses[0], "last": losses[-1]}]

    def describe(self, lines: Sequence[Mapping[str, Any]]) -> str:
        """See `Adaptation.describe`."""
        return "".join(
            f"{line['tensors']} norms were tuned; the KL on the text went from {line['first']:.3f} to {line['last']:.3f}."
            for line in lines
        )
