"""The teacher's predictions on one batch in as many numbers a token as a hidden state has, for models with a linear head.

With teacher logits t = W u + b, child logits s = W v + b and the teacher's probabilities p,

    KL(teacher || child) = sum p log p - (p W) . v - p . b + lse(s)

so that `p W`, one vector of the hidden size, and the rest, one number, stand for all of the vocabulary. The child's logits are
needed for `lse(s)` alone, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from anyblock.modeling.finite import require_finite_score
from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.logit_chunks import logit_chunks
from anyblock.modeling.spool import Spool

CHUNK_ELEMENTS: Final = 1 << 23
"""Logits held at a time: 32 MiB, so that what a chunk needs is still in a cache when it is read again."""


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


class LinearTargets:
    """What the teacher says on one batch.

    Args:
        engine: the teacher, which computes in float32: rounding in the logits would not cancel out here.
        head: see `find_linear_head`.
        hidden: output of the teacher's last layer, [batch, length, hidden].
        spool: where it is kept.
    """

    def __init__(
        self, engine: LayerwiseModel, head: nn.Linear, batch: Batch, hidden: torch.Tensor, *, spool: Spool
    ) -> None:
        self._engine = engine
        self._head = head
        self._batch = batch
        final = engine.final_hidden(hidden, batch).flatten(0, 1)
        mean = torch.empty_like(final)
        rest = torch.empty(len(final), dtype=torch.float64, device=final.device)
        for part, scores in predictions(head, final):
            chances = scores.exp()
            # They add up to 1 but for the rounding of a float32 sum over the vocabulary, which would not cancel out here.
            total = chances.sum(-1, dtype=torch.float64)
            mean[part] = ((chances @ head.weight).double() / total[:, None]).float()
            if head.bias is not None:
                scores -= head.bias
            rest[part] = scores.mul_(chances).sum(-1, dtype=torch.float64) / total - total.log()
        self._kept = spool.collect([mean, rest])

    def distance(self, hidden: torch.Tensor) -> tuple[float, int]:
        """Return `(sum over tokens, number of tokens)` of the KL for a child's last hidden states.

        Raises:
            ExecutionError: the result is not finite.
        """
        final = self._engine.final_hidden(hidden, self._batch).flatten(0, 1)
        total = sum(float(part.sum()) for part in self._divergences(final))
        return require_finite_score(total, "kl"), len(final)

    def divergences(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield KL(teacher || child) of all positions, chunk by chunk, float64; gradients reach `hidden`.

        Args:
            hidden: a child's last hidden states, [batch, length, hidden].
        """
        for part in _chunks(self._head, hidden.shape[0] * hidden.shape[1]):
            # Again for each chunk, whose graph may be gone once its gradient is taken.
            final = self._engine.final_hidden(hidden, self._batch).flatten(0, 1)
            yield self._divergence(final, part)

    def _divergences(self, final: torch.Tensor) -> Iterator[torch.Tensor]:
        for part in _chunks(self._head, len(final)):
            yield self._divergence(final, part)

    def _divergence(self, final: torch.Tensor, part: slice) -> torch.Tensor:
        mean, rest = (kept[part] for kept in self._kept)  # p W, and sum p log p - p . b
        # Large numbers of which a small one is left: summed in float64.
        expected = (mean.double() * final[part].double()).sum(-1)
        logits: torch.Tensor = self._head(final[part])
        return rest - expected + logits.logsumexp(-1).double()


@torch.no_grad()
def predictions(head: nn.Linear, final: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield which tokens, and their log-probabilities, [tokens of the chunk, vocabulary], which the caller may write to.

    Args:
        head: the head.
        final: the final hidden states, [tokens, hidden].
    """
    for part in _chunks(head, len(final)):
        yield part, head(final[part]).log_softmax(-1)


def _chunks(head: nn.Linear, tokens: int) -> Iterator[slice]:
    return logit_chunks(tokens, head.out_features, CHUNK_ELEMENTS)
