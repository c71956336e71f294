"""Build: does a child survive being saved, loaded and tied?"""

from __future__ import annotations

from typing import Any

from anyblock_conformance.check import check
from anyblock_conformance.children import candidates_without, child_model, survives, write_child
from anyblock_conformance.expect import NotApplicableError, equal, that
from anyblock_conformance.kinds import removable
from anyblock_conformance.subject import Subject, logits


@check("build.save-reload", capability="build", depends_on=["build.no-op"])
def check_save_reload(subject: Subject) -> None:
    """A child survives `save_pretrained`, `load_model` and `from_pretrained`, and computes the same afterwards.

    Why: people train, quantize and deploy the child with their own tools, which go through these functions.

    How to fix: a no-op must bring no parameter or buffer that a checkpoint would have to hold; nothing may depend on a
    hook that only AnyBlock's own loader calls.
    """
    chosen = [
        (layer, half) for layer in subject.layers for half in removable(subject, layer)[layer % 2 : layer % 2 + 1]
    ]
    if not chosen:
        raise NotApplicableError("the adapter removes no half of any layer")
    path = write_child(subject, candidates_without(subject, chosen))
    survives(subject, path)


@check("build.tied-embeddings", capability="build", needs="tiny", depends_on=["convert.bit-for-bit", "build.no-op"])
def check_tied_embeddings(subject: Subject) -> None:
    """A model whose output head is its input embedding stays one: stored once, loaded once, in a child as well.

    Why: in a small model the embedding is a large part of all parameters. Stored or loaded twice, the child is larger
    than its budget, and training it pulls the two apart.

    How to fix: leave the head out of the checkpoint when the configuration ties it; let neither `dequantize` nor
    `init_rotary_embedding` make a copy of it.
    """
    tied = subject.tied
    if tied is None:
        raise NotApplicableError("this family does not tie its embeddings")
    outer = {f"{path}.weight" for path in (tied.family.output_embedding_name(), tied.family.input_embedding_name())}
    before = [name for name in tied.tensors if tied.module_names.get(tied.family.convert_weight_name(name)) in outer]
    stored = [name for names in tied.converted.groups.values() for name in names]
    after = [name for name in stored if tied.module_names.get(name, name) in outer]
    equal(len(after), len(before), f"the number of stored copies of the embedding ({', '.join(after)})")
    _require_tied(tied.teacher, "the loaded model")
    tied.close(logits(tied.teacher, tied.ids), tied.logits, "logits of the loaded model")
    last = tied.num_layers - 1
    halves = removable(tied, last)
    if halves:
        _require_tied(child_model(tied, candidates_without(tied, [(last, halves[-1])])), "a child")


def _require_tied(model: Any, what: str) -> None:
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    that(
        head is embedding,
        f"{what} has a head of its own, {list(head.shape)}, next to the embedding {list(embedding.shape)}",
    )
