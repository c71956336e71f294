"""`ScoringMetric`: how far a child is from its teacher on a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from anyblock.contract.settings import Configured

if TYPE_CHECKING:
    import torch


class ScoringMetric(Configured, ABC):
    """A number, smaller for better children, that adds up over the text. Since 0.2.

    The score of a child is the sum of the first over the sum of the second of the two numbers that `distance` returns for each
    part of the text.

    Class attributes:
        summary: one line, in which unit.
        sees: what of a model is compared: its `logits`, its `final_hidden` states (after the final norm), or the
            `block_output` of the layer that was changed, so that no later layer has to run.
        settings: the section of the configuration that stands under `scoring.NAME`; `self.settings_given` holds it.
        is_kl: whether it is KL(teacher || child) per token, which gradients predict (`scoring.method: estimated`).
    """

    summary: ClassVar[str]
    sees: ClassVar[Literal["logits", "final_hidden", "block_output"]] = "logits"
    is_kl: ClassVar[bool] = False

    @abstractmethod
    def distance(
        self, child: torch.Tensor, teacher: torch.Tensor, next_ids: torch.Tensor | None
    ) -> tuple[float, float]:
        """Return the distance summed over a part of the text, and what to divide it by, usually the number of tokens.

        Args:
            child: what `sees` names, [sequences, tokens, features], in the dtype of the computation.
            teacher: the same of the teacher.
            next_ids: the token that follows each position, int64 [sequences, tokens or one less]: there is none for the last
                position of a sequence. None with `block_output`.
        """
