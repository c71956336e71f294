"""The typed settings: defaults, strictness, sizes, and a stable JSON form."""

from __future__ import annotations

import json
from math import lcm

import pytest
from anyblock.config.extension_sections import with_sections
from anyblock.config.pruning import HeadsPruning, PruningConfig
from anyblock.config.schema import RunConfig, SearchConfig
from anyblock.contract.kind_settings import ChannelSettings, KindSettings
from anyblock.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError


def run(**sections: object) -> RunConfig:
    return RunConfig.model_validate({"model": "m", "output": "o", **sections})


def test_two_keys_are_enough() -> None:
    config = run()
    assert config.pruning.ffn.sizes == (0.25, 0.5, 0.75)
    assert config.pruning.ffn.no_op
    assert config.pruning.attention.no_op
    assert config.pruning.ffn.hook is None
    assert config.pruning.ffn.extra_hooks == ("IndependentChannelContributionHook",)
    assert list(config.pruning.kinds()) == ["ffn_intermediate"]
    assert config.data.held_out == 0.3
    assert not config.trust_remote_code


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= models(inner)
    return found


def test_every_section_is_frozen_closed_and_documented() -> None:
    sections = models(RunConfig)
    assert len(sections) >= 11
    for section in sections:
        assert section.model_config["frozen"]
        assert section.model_config["extra"] == "forbid"
        assert section.__doc__
        assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        run().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": "1"},
        {"seed": True},
        {"seed": 1.0},
        {"seed": -1},
        {"trust_remote_code": "yes"},
        {"trust_remote_code": 1},
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"dtype": "fp16"},
        {"model": ""},
        {"model": 3},
        {"data": {"block_size": 0}},
        {"data": {"held_out": 1.0}},
        {"data": {"held_out": 0.0}},
        {"data": {"path": 3}},
        {"scoring": {"metric": ""}},
        {"search": {"time_limit": 0.0}},
        {"search": {"gap": float("nan")}},
        {"search": {"time_limit": float("inf")}},
        {"search": {"length": 128, "generated": 128}},
        {"pruning": {"ffn": {"sizes": 0.5}}},
        {"pruning": {"ffn": {"sizes": [1.5]}}},
        {"pruning": {"ffn": {"sizes": [0]}}},
        {"pruning": {"ffn": {"sizes": [-0.5]}}},
        {"pruning": {"ffn": {"sizes": ["half"]}}},
        {"pruning": {"ffn": {"sizes": ["2x"]}}},
        {"pruning": {"ffn": {"sizes": ["100%"]}}},
        {"pruning": {"ffn": {"sizes": [True]}}},
        {"pruning": {"ffn": {"sizes": [None]}}},
        {"pruning": {"ffn": {"hook": 3}}},
        {"pruning": {"ffn": {"multiple": 0}}},
        {"pruning": {"ffn": {"hook_options": {"a": [1]}}}},
        {"pruning": {"other": {"kv_heads": {}}}},
        {"pruning": {"repair": {"method": "lsq"}}},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused(sections: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        run(**sections)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_devices(device: str) -> None:
    assert run(device=device).device == device


def test_a_size_is_kept_in_one_spelling() -> None:
    spellings = [[0.25, 2048], ["0.25x", 2048], [".25x", 2048], [" 0.25 x ", 2048], ["25%", 2048]]
    configs = [run(pruning={"ffn": {"sizes": sizes}}) for sizes in spellings]
    assert {config.pruning.ffn.sizes for config in configs} == {(0.25, 2048)}


def test_sizes_in_units() -> None:
    assert KindSettings(sizes=(0.5, 3, 8, 9)).absolute_sizes(8) == (3, 4, 9)  # 9 is refused where candidates are listed
    assert KindSettings(sizes=(0.01, 0.99)).absolute_sizes(8) == (1,)
    assert KindSettings(sizes=(0.25, 0.5, 0.75), multiple=64).absolute_sizes(14336) == (3584, 7168, 10752)
    assert ChannelSettings(sizes=(0.3,)).absolute_sizes(14336) == (4288,)


def test_heads_given_the_other_way_round() -> None:
    settings = HeadsPruning(sizes=(4,), heads_per_group=(8, 16, 32))
    assert settings.offers
    assert settings.absolute_sizes(8, query_heads=32) == (1, 2, 4)
    with pytest.raises(ConfigError, match=r"has 5, and the attention has 32 query heads"):
        HeadsPruning(heads_per_group=(5,)).absolute_sizes(8, query_heads=32)
    with pytest.raises(ConfigError, match="None query heads"):
        settings.absolute_sizes(8)


@settings(deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 300) | st.floats(0.01, 0.99), max_size=6),
    teacher=st.integers(1, 300),
    multiple=st.sampled_from([None, 1, 2, 7, 64]),
    multiples=st.sampled_from([(1,), (256, 32), (128, 64), (6,)]),
    kind=st.sampled_from([KindSettings, ChannelSettings]),
)
def test_absolute_sizes_are_ascending_not_the_teachers_and_rounded(
    sizes: list[float], teacher: int, multiple: int | None, multiples: tuple[int, ...], kind: type[KindSettings]
) -> None:
    own = kind(sizes=tuple(sizes), multiple=multiple)
    found = own.absolute_sizes(teacher, multiples=multiples)
    suiting = [each for each in multiples if teacher % each == 0] or [multiples[-1]]
    step = multiple or lcm(suiting[0] if suiting[0] <= teacher else 1, own.usual_multiple(teacher))
    assert list(found) == sorted(set(found))
    assert all(0 < size != teacher for size in found)
    for size in found:
        asked = size in sizes
        ends = (step, teacher // step * step)
        rounded = size % step == 0 and any(
            isinstance(share, float) and (abs(share * teacher - size) <= step / 2 or size in ends) for share in sizes
        )
        assert asked or rounded
        assert asked or size < teacher or step > teacher  # which only a `multiple` of the user's can be


def test_widths_suit_what_runs_the_child_as_far_as_the_teachers_do() -> None:
    """K-quants need rows of 256, the other types of 32; a multiple that the user gave stays, and so do numbers of units."""
    ffn, blocks = ChannelSettings(sizes=(0.3, 0.7)), (256, 32)
    assert ffn.absolute_sizes(1024, multiples=blocks) == (256, 768)
    assert ffn.absolute_sizes(1000, multiples=blocks) == (288, 704)
    assert ffn.absolute_sizes(20, multiples=blocks) == (6, 14)  # there is nothing to suit
    assert ChannelSettings(sizes=(0.3, 100), multiple=1).absolute_sizes(1024, multiples=blocks) == (100, 307)
    assert KindSettings(sizes=(0.3, 0.7)).absolute_sizes(8, multiples=(4,)) == (4,)


@given(st.integers(1, 100_000))
@settings(deadline=None, derandomize=True)
def test_the_usual_multiple_of_channels_is_the_largest_that_leaves_eight_parts(size: int) -> None:
    step = ChannelSettings().usual_multiple(size)
    assert step == 1 or (size % step == 0 and size // step >= 8)
    assert step == 64 or size % (2 * step) or size // (2 * step) < 8


def test_a_short_sequence_has_room_for_a_prompt() -> None:
    assert SearchConfig().generated_tokens == 128
    assert SearchConfig(length=10).generated_tokens == 5
    assert SearchConfig(length=1).generated_tokens == 0
    assert SearchConfig(length=300, generated=299).generated_tokens == 299


def test_kinds_lists_what_offers_sizes() -> None:
    of_plugins = {"state_size": KindSettings, "empty": KindSettings}
    pruning = with_sections(PruningConfig, of_plugins).model_validate(
        {
            "ffn": {"sizes": []},
            "kv_heads": {"heads_per_group": [8]},
            "experts_removal": {"sizes": []},
            "hidden_size": {"sizes": [0.5]},
            "state_size": {"sizes": [4]},
            "empty": {},
        }
    )
    assert list(pruning.kinds()) == ["kv_heads", "hidden_size", "state_size"]


def test_a_list_of_budgets_is_a_mapping() -> None:
    assert SearchConfig(budget=["params=0.8x", "kv_heads>=4"]).budget == {"params": "0.8x", "kv_heads": ">=4"}  # type: ignore[arg-type]


SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**32),
        "run_dir": st.none() | st.text(),
        "device": st.sampled_from(["auto", "cpu", "cuda:3"]),
        "data": st.fixed_dictionaries(
            {}, optional={"path": st.none() | st.text(), "block_size": st.integers(1, 9999), "held_out": st.just(0.5)}
        ),
        "pruning": st.fixed_dictionaries(
            {},
            optional={
                "ffn": st.fixed_dictionaries({"sizes": st.lists(st.integers(1, 99) | st.floats(0.01, 0.99))}),
                "state_size": st.just({"sizes": [2], "hook_options": {"a": 1.5}}),
                "kv_heads": st.none() | st.fixed_dictionaries({"heads_per_group": st.lists(st.integers(1, 9))}),
            },
        ),
        "search": st.fixed_dictionaries(
            {}, optional={"budget": st.dictionaries(st.sampled_from(["params", "memory"]), st.floats(1, 1e12))}
        ),
    },
)


@settings(deadline=None, derandomize=True)
@given(SECTIONS)
def test_the_json_form_gives_the_same_config_back(sections: dict[str, object]) -> None:
    schema = with_sections(RunConfig, {"pruning.state_size": KindSettings})
    config = schema.model_validate({"model": "a", "output": "b", **sections})
    again = schema.model_validate(json.loads(json.dumps(config.to_dict())))
    assert again == config
