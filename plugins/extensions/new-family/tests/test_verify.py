"""What the conformance suite contradicts is claimed no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from anyblock_new_family.introspection import infer_family, inferred_model_family
from anyblock_new_family.verify import false_claims, verified
from anyblock_new_family.write import files

CLAIMED = {"convert", "build", "kv_heads", "search"}


def _result(identifier: str, capability: str | None, outcome: str = "false claim") -> dict[str, object]:
    message = "differs in /tmp/anyblock-conformance-x1y2/source/config.json\n  by a lot"
    return {"id": identifier, "capability": capability, "outcome": outcome, "message": message}


def test_a_failed_check_takes_its_claim_and_what_needs_it() -> None:
    assert false_claims([_result("prune.sort[kv_heads]", "kv_heads")], CLAIMED) == {
        "kv_heads": "prune.sort[kv_heads]: differs in source/config.json by a lot"
    }
    assert false_claims([_result("build.layerwise", "build")], CLAIMED).keys() == {"build", "search"}
    assert false_claims([_result("build.layerwise", "build", "passed")], CLAIMED) == {}
    assert false_claims([_result("prune.sort[experts_removal]", "experts_removal")], CLAIMED) == {}


def test_nothing_is_claimed_when_a_check_fails_that_all_rest_on() -> None:
    assert false_claims([_result("structure.many-layers", None, "failed")], CLAIMED).keys() == CLAIMED


@pytest.mark.slow
def test_a_wrong_claim_is_found_by_the_suite_and_declared_with_the_reason() -> None:
    pytest.importorskip("anyblock_conformance")
    honest = infer_family("llama")
    wrong = [  # the output projection is taken for an input, so channels are cut off the wrong dimension
        replace(call, arguments={**call.arguments, "linears": ("gate_proj", "down_proj", "up_proj")})
        if call.function == "ffn_mixins"
        else call
        for call in honest.mixins
    ]
    found = verified(replace(honest, mixins=tuple(wrong)))
    assert found.failures == []
    assert found.inferred.attributes["not_implemented"]["ffn_intermediate"].startswith(("prune.", "structure."))
    family = inferred_model_family(found.inferred)
    assert not family.supports("ffn_intermediate")
    assert family.supports("kv_heads")
    assert found.inferred.levels is not None
    assert all(found.inferred.levels.values())
    assert "`ffn_intermediate`: prune." in files(found.inferred)["README.md"]
