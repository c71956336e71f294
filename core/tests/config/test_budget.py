"""Budgets as people write them."""

from __future__ import annotations

import pytest
from anyblock.config.budget import Bound, Quantity, merge_entries, parse_bound
from anyblock.costs.registry import known_costs
from anyblock.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("cost", "value", "upper", "lower"),
    [
        ("params", "0.8x", (0.8, True), None),
        ("params", "80%", (0.8, True), None),
        ("params", ".5x", (0.5, True), None),
        ("params", "7B", (7e9, False), None),
        ("params", "7_000_000_000", (7e9, False), None),
        ("params", 7e9, (7e9, False), None),
        ("params", 1e21, (1e21, False), None),
        ("params", "<=1.5e9", (1.5e9, False), None),
        ("params", ">= 100M", None, (1e8, False)),
        ("memory", "2.5GiB", (2.5 * 2**30, False), None),
        ("memory", "2.5 GB", (2.5e9, False), None),
        ("memory", "78000MiB", (78000 * 2**20, False), None),
        ("memory", 1024, (1024.0, False), None),
        ("latency", "12ms", (12.0, False), None),
        ("latency", "0.5s", (500.0, False), None),
        ("latency", "250us", (0.25, False), None),
        ("throughput", "500tok/s", None, (500.0, False)),
        ("throughput", "500", None, (500.0, False)),
        ("throughput", "<=1000/s", (1000.0, False), None),
        ("kv_heads", "40..100", (100.0, False), (40.0, False)),
        ("kv_heads", "0.5x .. 100", (100.0, False), (0.5, True)),
    ],
)
def test_a_value_says_what_it_bounds(
    cost: str, value: float | str, upper: tuple[float, bool] | None, lower: tuple[float, bool] | None
) -> None:
    expected = Bound(cost, upper and Quantity(*upper), lower and Quantity(*lower))
    assert parse_bound(cost, value) == expected


def test_a_share_is_of_the_teacher() -> None:
    assert Quantity(0.8, relative=True).resolve(50.0) == 40.0
    assert Quantity(0.8, relative=False).resolve(50.0) == 0.8


@pytest.mark.parametrize(
    ("cost", "value", "message"),
    [
        ("parms", "1", "no cost 'parms'.*\n.*\n.*'params'"),
        ("params", "2GiB", "'2GiB' is not a quantity.*\n.*parameters"),
        ("memory", "7B", "'7B' is not a quantity.*\n.*bytes"),
        ("memory", "2gib", "is not a quantity"),
        ("latency", "3GiB", "is not a quantity"),
        ("params", "", "'' is not a quantity"),
        ("params", "..", "is not a quantity"),
        ("params", "1..", "is not a quantity"),
        ("params", "1..2..3", "is not a quantity"),
        ("params", "-5", "is not a quantity"),
        ("params", "7_", "is not a quantity"),
        ("params", "7__0", "is not a quantity"),
        ("params", "nan", "is not a quantity"),
        ("params", "inf", "is not a quantity"),
        ("params", "0", "the bound is 0"),
        ("params", "0x", "the bound is 0x"),
        ("params", "0.8", "the bound is 0.8 parameters\n.*0.8x for a share of the teacher"),
        ("params", "<=0.8", "the bound is 0.8 parameters"),
        ("memory", ".5", "the bound is .5 bytes\n.*.5x for a share"),
        ("params", "1e999", "finite"),
        ("params", "100..40", "lower bound is above"),
        ("params", "0.9x..0.5x", "lower bound is above"),
        ("params", "==5", "is not a quantity"),
        ("params", "about 5", "is not a quantity"),
        ("params", "5; rm", "is not a quantity"),
        ("params", "٥", "is not a quantity"),
    ],
)
def test_an_unusable_value_is_refused(cost: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_bound(cost, value)


def test_every_cost_has_a_unit_that_can_be_written() -> None:
    for cost in known_costs():
        bound = parse_bound(cost, "3")
        assert (bound.upper or bound.lower) == Quantity(3.0, relative=False)


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-6, 1e15), st.sampled_from(["x", "", "K", "M", "B"]))
def test_a_written_number_is_read_back(number: float, unit: str) -> None:
    number = number if unit else max(number, 1.0)  # less than one parameter is refused
    factor = {"x": 1.0, "": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}[unit]
    assert parse_bound("params", f"{number!r}{unit}").upper == Quantity(number * factor, relative=unit == "x")


def merged(*entries: str) -> dict[str, str]:
    return {cost: value for cost, (value, _) in merge_entries((entry, "") for entry in entries).items()}


def test_a_list_becomes_one_value_a_cost() -> None:
    assert merged("params=0.8x", "memory <= 2GiB", "kv_heads>=4") == {
        "params": "0.8x",
        "memory": "<=2GiB",
        "kv_heads": ">=4",
    }
    assert merged() == {}


def test_two_sides_become_a_range() -> None:
    assert merged("kv_heads>=40", "kv_heads<=100") == {"kv_heads": "40..100"}
    assert merged("kv_heads=100", "kv_heads>=40") == {"kv_heads": "40..100"}
    assert merged("throughput=50", "throughput<=100") == {"throughput": "50..100"}


def test_the_same_bound_twice_is_one() -> None:
    assert merged("params=0.8x", "params=0.8x") == {"params": "0.8x"}
    assert parse_bound("params", merged("params=0.8x", "params<=80%")["params"]).upper == Quantity(0.8, relative=True)


@pytest.mark.parametrize(
    "entries",
    [
        ("params=0.8x", "params=0.7x"),
        ("params<=0.8x", "params=0.7x"),
        ("params>=1B", "params>=2B"),
        ("kv_heads=40..100", "kv_heads<=90"),
        ("memory=1GiB", "kv_heads=3", "memory=2GiB"),
    ],
    ids=", ".join,
)
def test_two_budgets_on_one_side_contradict_each_other(entries: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="contradict each other") as caught:
        merge_entries((entry, f"line {index}") for index, entry in enumerate(entries))
    assert "(line 0)" in caught.value.what
    assert f"(line {len(entries) - 1})" in caught.value.what


def test_bounds_with_nothing_between_them_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower bound is above"):
        merged("params>=2B", "params<=1B")


@pytest.mark.parametrize("entry", ["params", "params=", "=3", "0.8x", "params:3", "params 3", "params=>3", ""])
def test_an_entry_needs_a_name_and_a_value(entry: str) -> None:
    with pytest.raises(ConfigError):
        merged(entry, entry.replace("3", "4"))
