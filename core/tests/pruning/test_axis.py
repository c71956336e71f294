"""Index expansion: for any layout, taking units is one `index_select`, and it is a view where one run suffices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anyblock.contract.tensor_axis import Segment, Silence, TensorAxis, UnitTensors, entries, silenced, take
from anyblock.errors import CheckpointError
from hypothesis import given, settings
from hypothesis import strategies as st

_ROLES = st.sampled_from(["unit", "query", "stay"])
_LAYOUTS = st.lists(st.builds(Segment, st.integers(1, 4), _ROLES), min_size=1, max_size=4)


def _spelled_out(layout: list[Segment], units: int, chosen: dict[str, list[int]]) -> list[int]:
    result: list[int] = []
    start = 0
    for segment in layout:
        if segment.role == "stay":
            result += range(start, start + segment.width)
            start += segment.width
        else:
            for unit in chosen[segment.role]:
                result += range(start + unit * segment.width, start + (unit + 1) * segment.width)
            start += segment.width * units
    return result


@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data(), layout=_LAYOUTS, units=st.integers(1, 12), dim=st.integers(0, 1))
def test_taking_units_equals_selecting_their_entries(data: Any, layout: list[Segment], units: int, dim: int) -> None:
    chosen = {
        role: data.draw(st.permutations(range(units)))[: data.draw(st.integers(1, units))] for role in ("unit", "query")
    }
    axis = TensorAxis("t", dim, tuple(layout))
    length = sum(segment.length(units) for segment in layout)
    tensor = torch.randn((length, 3) if dim == 0 else (3, length))
    assert axis.covers(tensor, units)
    runs = axis.runs(units, {role: torch.tensor(value) for role, value in chosen.items()})  # type: ignore[misc]
    wanted = _spelled_out(layout, units, chosen)
    assert entries(runs).tolist() == wanted
    found = take(tensor, dim, runs)
    assert torch.equal(found, tensor.index_select(dim, torch.tensor(wanted)))
    meta = take(tensor.to("meta"), dim, runs)
    assert meta.shape == found.shape
    if len(runs) == 1:
        assert found.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(layout=_LAYOUTS, units=st.integers(2, 8), data=st.data())
def test_silencing_touches_the_removed_units_only(layout: list[Segment], units: int, data: Any) -> None:
    removed = sorted(data.draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units)))
    kinds = [
        Segment(s.width, s.role, data.draw(st.sampled_from([Silence.KEEP, Silence.ZERO, Silence.NEVER])))
        for s in layout
    ]
    axis = TensorAxis("t", 0, tuple(kinds))
    tensor = torch.randn(sum(segment.length(units) for segment in kinds), 2)
    before = tensor.clone()
    found = silenced(tensor, axis, units, torch.tensor(removed))
    wanted = before.clone()
    for start, segment in axis.placed(units):
        for unit in removed if segment.role != "stay" and segment.silence is not Silence.KEEP else []:
            value = 0.0 if segment.silence is Silence.ZERO else float("-inf")
            wanted[start + unit * segment.width : start + (unit + 1) * segment.width] = value
    assert torch.equal(found, wanted)
    assert torch.equal(tensor, before), "the teacher's tensor is never written to"


def test_silencing_a_norm_makes_up_for_the_smaller_mean() -> None:
    axis = TensorAxis("norm", 0, (Segment(2, "unit", Silence.NORM),))
    x, weight = torch.randn(5, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    x[:, 4:] = 0

    def norm(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return values / values.square().mean(dim=1, keepdim=True).sqrt() * scale

    masked = norm(x, silenced(weight, axis, 4, torch.tensor([2, 3])))
    torch.testing.assert_close(masked[:, :4], norm(x[:, :4], weight[:4]))
    assert not masked[:, 4:].any()


@pytest.mark.parametrize(("shape", "dim"), [((9, 2), 0), ((2, 8), 0), ((8,), 1)])
def test_a_tensor_that_does_not_fit_is_named(shape: tuple[int, ...], dim: int) -> None:
    with pytest.raises(CheckpointError, match=r"mlp\.up\.weight") as caught:
        TensorAxis("mlp.up.weight", dim, (Segment(2),)).covers(torch.zeros(shape), 4)
    assert caught.value.expected == f"8 entries in dimension {dim}, for 4 units"


def test_a_norm_over_one_head_is_left_alone() -> None:
    axis = TensorAxis("q_norm.weight", 0, (Segment(8),), only_if_full=True)
    assert not axis.covers(torch.zeros(8), 4)
    assert axis.covers(torch.zeros(32), 4)


def test_experts_with_their_own_tensors_are_renumbered() -> None:
    tensors = {
        f"moe.experts.{e}.{part}": torch.full((1,), float(e)) for e in range(12) for part in ("up.weight", "scale")
    }
    tensors["moe.gate.weight"] = torch.zeros(1)
    named = UnitTensors("moe.experts.{expert_idx}.", ("up.weight",))
    found = named.select(tensors, 12, torch.tensor([11, 1, 10]))
    assert set(found) == {
        "moe.gate.weight",
        *(f"moe.experts.{e}.{p}" for e in range(3) for p in ("up.weight", "scale")),
    }
    assert [found[f"moe.experts.{e}.scale"].item() for e in range(3)] == [11, 1, 10]
    del tensors["moe.experts.7.up.weight"]
    with pytest.raises(CheckpointError, match=r"moe\.experts\.7\.up\.weight"):
        named.select(tensors, 12, torch.tensor([0]))
