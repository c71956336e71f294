"""The adapter gives what the reference system gives."""

from collections.abc import Callable
from typing import Any

import pytest
from anyblock.family import get_family
from anyblock.pruning.layouts import attention_mixins, fused_sparse_mixins


@pytest.mark.shared
def test_a_conversion_is_the_references(check_golden: Callable[..., None]) -> None:
    def corrected(block: Any) -> Any:
        # The reference writes its default of 8192 for a shared expert that gpt-oss does not have.
        assert block.ffn.moe.shared_expert_intermediate_dim == 8192
        return block.with_moe(shared_expert_intermediate_dim=None)

    check_golden("gpt_oss/fp32", corrected)


def test_mixins_are_those_whose_children_core_compares_with_the_references() -> None:
    own = get_family("gpt_oss").pruning_mixins()
    compared = {
        **attention_mixins(),
        **fused_sparse_mixins(router="router", gate_up="interleaved", transposed=True),
    }
    for kind, mixin in compared.items():
        assert own[kind].layer_descriptor == mixin.layer_descriptor
