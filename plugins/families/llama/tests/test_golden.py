"""The adapter gives what the reference system gives."""

from collections.abc import Callable

import pytest
from anyblock.family import get_family
from anyblock.pruning.layouts import dense_mixins


@pytest.mark.shared
def test_a_conversion_is_the_references(check_golden: Callable[[str], None]) -> None:
    check_golden("llama/fp32")


def test_mixins_are_those_whose_children_core_compares_with_the_references() -> None:
    own, compared = get_family("llama").pruning_mixins(), dense_mixins()
    for kind, mixin in compared.items():
        assert own[kind].layer_descriptor == mixin.layer_descriptor
