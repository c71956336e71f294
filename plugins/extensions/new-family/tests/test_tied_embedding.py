"""An embedding that is stored under the name of a module it is tied to is held to its group all the same."""

from __future__ import annotations

from dataclasses import replace

from anyblock_conformance.run import run_conformance
from anyblock_new_family.introspection import infer_family, inferred_model_family

STORED = "prophetnet.word_embeddings"


def test_a_tied_embedding_in_another_group_fails() -> None:
    inferred = infer_family("prophetnet")
    names, head = inferred.attributes["checkpoint_embeddings"], inferred.attributes["checkpoint_head"] or ("lm_head",)
    assert STORED in names
    moved = {
        "checkpoint_embeddings": tuple(name for name in names if name != STORED),
        "checkpoint_head": (*head, STORED),
    }
    family = inferred_model_family(replace(inferred, attributes={**inferred.attributes, **moved}))
    found = {result.id: result for result in run_conformance(family, levels=["structure"]).results}
    assert found["structure.outer-groups"].outcome.name == "FAILED"
    assert f"{STORED}.weight is in lm_head, expected embeddings" in found["structure.outer-groups"].message
    right = run_conformance(inferred_model_family(inferred), levels=["structure"]).results
    assert {result.id: result for result in right}["structure.outer-groups"].outcome.name == "PASSED"
