"""Build: does a removed half leave the residual path, and nothing else?"""

from __future__ import annotations

from anyblock_conformance.check import check
from anyblock_conformance.children import Removed, silent_teacher, tensors_of, without_halves
from anyblock_conformance.decoding import cached_logits, greedy, workable_steps
from anyblock_conformance.expect import NotApplicableError, distance, equal, that
from anyblock_conformance.kinds import half_cases, removable
from anyblock_conformance.subject import Subject, logits


@check(
    "build.no-op",
    capability="{case}_no_op",
    cases=half_cases,
    depends_on=["convert.bit-for-bit", "build.buffers"],
)
def check_no_op(subject: Subject, half: str) -> None:
    """A removed half adds nothing to the residual path, and its parameters are gone, in every layer.

    Why: a no-op that scales, normalises or repeats the residual is another model than the one whose score was measured,
    and one that keeps parameters saves nothing.

    How to fix: in `attn_no_op_post_init` or `mlp_no_op_post_init` replace the half's module by `NoOpAttention` or
    `NoOpFFN` and the norms that only this half uses by `NoOpNorm` (`remove_half` does both); put exactly these tensors into
    the half's group. Where the residual is added inside the branch, return the residual.
    """
    layers = [layer for layer in subject.layers if not subject.blocks[layer].half(half).no_op]
    if not layers:
        raise NotApplicableError(f"no layer has this half: {half}")
    for layer in layers:
        removed: Removed = ((layer, "attention" if half == "attention" else "ffn"),)
        model = without_halves(subject, removed)
        gone = set(subject.unloaded.state_dict()) - set(model.state_dict())
        equal(
            sorted(gone),
            sorted(tensors_of(subject, layer, half)),
            f"what the model lacks without {half} of layer {layer}",
        )
        found = logits(model, subject.ids)
        del model
        expected = logits(silent_teacher(subject, gone), subject.ids)
        subject.close(
            found, expected, f"logits without {half} of layer {layer}, next to the half's weights set to zero"
        )


@check("build.no-op-both", capability="build", depends_on=["build.no-op"])
def check_no_op_both(subject: Subject) -> None:
    """Both halves of a layer can go, and all halves of all layers.

    Why: the search removes halves independently of one another, so it removes both of a layer sooner or later.

    How to fix: the hook for one half must not read modules of the other one, which may be gone already.
    """
    both: list[Removed] = [tuple((layer, half) for half in removable(subject, layer)) for layer in subject.layers]
    both = [removed for removed in both if len(removed) == 2]
    if not both:
        raise NotApplicableError("the adapter does not remove both halves of any layer")
    everything: Removed = tuple(pair for removed in both for pair in removed)
    for removed in dict.fromkeys((*both, everything)):
        found = logits(without_halves(subject, removed), subject.ids)
        gone = {name for layer, half in removed for name in tensors_of(subject, layer, half)}
        expected = logits(silent_teacher(subject, gone), subject.ids)
        subject.close(found, expected, f"logits without {_shown(removed)}")


@check("build.cached-decoding", capability="build", depends_on=["build.no-op", "build.no-op-both"])
def check_cached_decoding(subject: Subject) -> None:
    """Decoding with a cache equals decoding without one, wherever a half is removed.

    Why: transformers counts past tokens in the cache of the first attention layer. A no-op there that keeps nothing gives
    every later token a wrong position, and no evaluation without a cache shows it.

    How to fix: let `NoOpAttention.replacing(module, returns=…)` stand in for the attention: it writes an entry of one head
    of one dimension. The module that it replaces has to know its `layer_idx`.
    """
    model, allowed = subject.reference, subject.tolerance
    steps = workable_steps(model, subject.ids, allowed)
    if steps is None or distance(cached_logits(model, subject.ids, steps), subject.logits) > allowed:
        raise NotApplicableError("the stock model itself decodes otherwise with a cache than without one")
    del model
    for removed in _placements(subject):
        _check_decoding(subject, removed, steps)


def _check_decoding(subject: Subject, removed: Removed, steps: tuple[int, ...]) -> None:
    model = without_halves(subject, removed, resident=None)
    found, expected = cached_logits(model, subject.ids, steps), logits(model, subject.ids)
    if distance(found, expected) > subject.tolerance and not _stock_decodes(subject, removed, steps):
        return
    subject.close(found, expected, f"logits with a cache, without {_shown(removed)}, next to those with none")
    prompt = subject.ids[:, :6]
    equal(
        greedy(model, prompt, new=4, use_cache=True),
        greedy(model, prompt, new=4, use_cache=False),
        f"tokens generated with a cache without {_shown(removed)}",
    )


def _stock_decodes(subject: Subject, removed: Removed, steps: tuple[int, ...]) -> bool:
    """Return whether the stock model with these halves' weights zero decodes with a cache as without one."""
    gone = {name for layer, half in removed for name in tensors_of(subject, layer, half)}
    silent = silent_teacher(subject, gone)
    return distance(cached_logits(silent, subject.ids, steps), logits(silent, subject.ids)) <= subject.tolerance


def _placements(subject: Subject) -> list[Removed]:
    """Return every single half, both halves of every layer, and the attention of all layers."""
    found: list[Removed] = []
    for layer in subject.layers:
        halves = removable(subject, layer)
        found += [((layer, half),) for half in halves]
        if len(halves) == 2:
            found.append(tuple((layer, half) for half in halves))
    attention: Removed = tuple(
        pair for removed in found if len(removed) == 1 for pair in removed if pair[1] == "attention"
    )
    found.append(attention)
    that(len(found) > 1, "the adapter declares no half as removable")
    return [removed for removed in dict.fromkeys(found) if removed]


def _shown(removed: Removed) -> str:
    return " and ".join(f"{half} of layer {layer}" for layer, half in removed)
