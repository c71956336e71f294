"""Gradients with respect to hidden states, carried backwards one layer at a time."""

from __future__ import annotations

import torch
from torch import nn

from anyblock.modeling.layerwise import Batch, LayerwiseModel
from anyblock.modeling.linear_head import LinearTargets, predictions
from anyblock.modeling.logit_chunks import logit_chunks
from anyblock.modeling.teacher_targets import CHUNK_ELEMENTS, TeacherTargets


def probe_gradients(
    engine: LayerwiseModel,
    batch: Batch,
    hidden: torch.Tensor,
    probes: int,
    generator: torch.Generator,
    *,
    head: nn.Linear | None = None,
) -> torch.Tensor:
    """Return gradients of the log-probability of drawn tokens at the last layer's output.

    At every position `probes` tokens are drawn from the prediction that `hidden` leads to.

    Args:
        engine: whose stock tail turns hidden states into logits.
        batch: the batch that `hidden` comes from.
        hidden: output of the last layer, [batch, length, hidden].
        probes: how many draws.
        generator: of the draws, on the CPU, so that the same seed gives the same tokens on every device.
        head: the head where it is linear (`find_linear_head`): what is then carried back through it is known without doing so.

    Returns:
        [probes, batch, length, hidden], float32.
    """
    if head is not None:
        return _probe_linear_head(engine, head, batch, hidden, probes, generator)
    found = torch.zeros(probes, *hidden.shape, device=hidden.device)
    leaf = hidden.detach().clone().requires_grad_()
    count, length, _ = hidden.shape
    for part in logit_chunks(length, engine.config.vocab_size * count, CHUNK_ELEMENTS):
        with torch.enable_grad():
            scores = engine.logits(leaf, batch, keep=part).float().log_softmax(-1).flatten(0, 1)
            drawn = torch.multinomial(scores.detach().exp().cpu(), probes, replacement=True, generator=generator)
            for probe in range(probes):
                total = scores.gather(1, drawn[:, probe : probe + 1].to(scores.device)).sum()
                (gradient,) = torch.autograd.grad(total, leaf, retain_graph=probe < probes - 1)
                found[probe] += gradient.float()
    return found


def _probe_linear_head(
    engine: LayerwiseModel,
    head: nn.Linear,
    batch: Batch,
    hidden: torch.Tensor,
    probes: int,
    generator: torch.Generator,
) -> torch.Tensor:
    leaf = hidden.detach().clone().requires_grad_()
    with torch.enable_grad():
        final = engine.final_hidden(leaf, batch)
    # Of log p(y) with logits W v it is the row of W for y less the mean of the rows under p.
    seeds = torch.empty(probes, *final.shape, device=final.device)
    for part, scores in predictions(head, final.detach().flatten(0, 1)):
        chances = scores.exp_()
        drawn = torch.multinomial(chances.cpu(), probes, replacement=True, generator=generator).to(scores.device)
        seeds.flatten(1, 2)[:, part] = (
            head.weight[drawn.T].float() - (chances.to(head.weight.dtype) @ head.weight).float()
        )
    found = torch.empty(probes, *hidden.shape, device=hidden.device)
    for probe in range(probes):
        (back,) = torch.autograd.grad(final, leaf, seeds[probe].to(final.dtype), retain_graph=probe < probes - 1)
        found[probe] = back.float()
    return found


def divergence_gradients(
    engine: LayerwiseModel, target: TeacherTargets | LinearTargets, batch: Batch, hidden: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of the summed KL(teacher || child) at the child's last layer, [batch, length, hidden], float32."""
    leaf = hidden.detach().clone().requires_grad_()
    found = torch.zeros_like(leaf, dtype=torch.float32)
    with torch.enable_grad():
        for part in target.divergences(leaf):
            (gradient,) = torch.autograd.grad(part.sum(), leaf)
            found += gradient.float()
    return found


def input_gradients(
    engine: LayerwiseModel,
    index: int,
    batch: Batch,
    hidden: torch.Tensor,
    gradients: torch.Tensor,
    *,
    layer: nn.Module | None = None,
) -> torch.Tensor:
    """Carry gradients at a layer's output back to its input; the layer is run once for all of them.

    Args:
        engine: the model.
        index: the layer.
        batch: the batch.
        hidden: the layer's input, [batch, length, hidden].
        gradients: [any, batch, length, hidden], float32.
        layer: a variant to run instead of the engine's own layer.
    """
    leaf = hidden.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = engine.run(index, leaf, batch, layer=layer)
    found = torch.empty_like(gradients)
    for place, gradient in enumerate(gradients):
        more = place < len(gradients) - 1
        (back,) = torch.autograd.grad(output, leaf, gradient.to(output.dtype), retain_graph=more)
        found[place] = back.float()
    return found
