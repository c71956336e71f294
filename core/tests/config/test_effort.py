"""`effort` sets the defaults of other keys, and whatever is written wins over it."""

from __future__ import annotations

import pytest
from anyblock.config import load_config
from anyblock.config.effort import EFFORTS, paths_of
from anyblock.contract.config_tree import dotted
from anyblock.errors import ConfigError

BASE = {"model": "teacher", "output": "child"}


def value(config, key):
    for part in key.split("."):
        config = getattr(config, part, None)  # a section of an extension is there where the file has it
    return list(config) if isinstance(config, tuple) else config


def settings(effort):
    """Every value of an effort by its dotted key."""
    found = {}
    for path in paths_of(EFFORTS[effort]):
        below = EFFORTS[effort]
        for part in path:
            below = below[part]
        if not isinstance(below, dict):
            found[dotted(path)] = below
    return found


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_value_of_an_effort_arrives_and_the_rest_keeps_its_default(effort):
    config, plain = load_config(None, [f"effort={effort}"], BASE), load_config(None, [], BASE)
    assert {key: value(config, key) for key in settings(effort)} == settings(effort)
    differs = {key for key in settings("quick") | settings("thorough") if value(config, key) != value(plain, key)}
    assert differs == settings(effort).keys()
    assert plain.effort == "balanced"
    assert config.effort == effort


@pytest.mark.parametrize("key", settings("thorough"))
def test_what_an_override_says_wins_over_the_effort(key):
    given = value(load_config(None, [], BASE), key) or False
    text = {True: "true", False: "false"}.get(given, str(given)) if isinstance(given, bool) else given
    config = load_config(None, [f"{key}={text}", "effort=thorough"], BASE)
    assert value(config, key) == given


def test_what_a_file_says_wins_over_the_effort_of_the_command_line(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: teacher\noutput: child\ndata: {calibration_tokens: 77}\n")
    config = load_config(file, ["effort=thorough"])
    assert config.data.calibration_tokens == 77
    assert config.data.scoring_tokens == EFFORTS["thorough"]["data"]["scoring_tokens"]


def test_an_effort_that_there_is_not_is_refused_with_the_three_that_there_are():
    with pytest.raises(ConfigError) as refused:
        load_config(None, ["effort=through"], BASE)
    assert "effort" in str(refused.value)
    assert all(name in str(refused.value) for name in EFFORTS)


def test_the_widths_of_an_effort_are_not_a_request_for_a_dense_ffn():
    assert load_config(None, ["effort=thorough"], BASE).pruning.requested_kinds() == set()
    assert load_config(None, ["pruning.ffn.sizes=[0.3]"], BASE).pruning.requested_kinds() == {"ffn_intermediate"}


def test_an_effort_that_trains_says_which_distribution_does(monkeypatch):
    monkeypatch.setenv("ANYBLOCK_DISABLE_PLUGINS", "anyblock-distillation")
    with pytest.raises(ConfigError, match=r"effort thorough: .*python -m pip install anyblock-distillation"):
        load_config(None, ["effort=thorough"], BASE)
