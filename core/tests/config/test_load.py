"""`load_config`: what wins over what, and messages with every fault, its line and the nearest name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from anyblock.config import load_config
from anyblock.config.registry import NameRegistry
from anyblock.errors import ConfigError, UsageError

BASE = {"model": "m", "output": "o"}


def test_no_file_is_needed() -> None:
    config = load_config(None, (), {**BASE, "search": {"budget": {"params": "0.8x"}}, "data": {"path": "text.txt"}})
    assert (config.model, config.output, config.data.path) == ("m", "o", "text.txt")
    assert config.search.budget == {"params": "0.8x"}


def test_a_file_is_enough(write) -> None:
    path = write(
        """
        model: here
        output: ${model}-small
        data: {path: text.txt, block_size: 128}
        search:
          budget: [params=0.8x, memory<=1GiB]
        """
    )
    config = load_config(path)
    assert (config.output, config.data.block_size) == ("here-small", 128)
    assert config.search.budget == {"params": "0.8x", "memory": "<=1GiB"}
    assert load_config(str(path)) == config


def test_overrides_win_over_options_and_options_over_the_file(write) -> None:
    path = write("model: a\noutput: b\nseed: 1\nsearch: {budget: {params: 0.8x, memory: 1GiB}}\n")
    base = {"seed": 2, "search": {"budget": ["params=0.7x"]}, "run_dir": "r"}
    config = load_config(path, ["run_dir=s", "search.batch=2"], base)
    assert (config.seed, config.run_dir, config.search.batch) == (2, "s", 2)
    assert config.search.budget == {"params": "0.7x", "memory": "1GiB"}
    assert load_config(path, ["search.budget.params=0.6x"], base).search.budget["params"] == "0.6x"
    assert load_config(path, ["search.budget=[params=0.6x]"], base).search.budget == {"params": "0.6x"}
    assert base == {"seed": 2, "search": {"budget": ["params=0.7x"]}, "run_dir": "r"}


def test_an_override_replaces_one_budget_of_a_list(write) -> None:
    path = write("model: a\noutput: b\nsearch:\n  budget:\n    - params=0.8x\n    - memory=1GiB\n")
    assert load_config(path, ["search.budget.memory=2GiB"]).search.budget == {"params": "0.8x", "memory": "2GiB"}


def test_all_faults_are_listed_with_their_lines(write) -> None:
    path = write(
        """
        model: a
        data:
          path: f
          blok_size: 3
          block_size: "7"
        pruning:
          fnn: {sizes: [1]}
          ffn:
            sizes:
              - 0.5
              - 2.5
          state_size: {sizes: [1]}
        serach: {}
        search:
          budget:
            parms: 0.8x
            memory: 0.8y
            latency: true
        """
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = caught.value.what.splitlines()
    assert lines[0] == "10 faults in the configuration"
    expected = [
        "output: is required and not set",
        f"{path}:5: data.block_size: input should be a valid integer ('7' was given)",
        f"{path}:4: data.blok_size: unknown key; did you mean 'block_size'",
        f"{path}:11: pruning.ffn.sizes[1]: a fraction lies between 0 and 1",
        f"{path}:7: pruning.fnn: unknown key; did you mean 'ffn'?",
        f"{path}:12: pruning.state_size: unknown key",
        f"{path}:13: serach: unknown key; did you mean 'search'",
        f"{path}:16: search.budget.parms: there is no cost 'parms'",
        f"{path}:17: search.budget.memory: '0.8y' is not a quantity",
        f"{path}:18: search.budget.latency: True is not a quantity",
    ]
    for text in expected:
        assert [line for line in lines if line.strip().startswith(text)], text


def test_one_fault_is_one_line(write) -> None:
    path = write("model: a\noutput: b\nscoring:\n  metric: KL\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.what == f"{path}:4: scoring.metric: there is no scoring metric 'KL'"
    assert set(caught.value.expected.split(", ")) >= {"cosine", "kl", "lm_loss", "mse"}


def test_a_section_of_another_type(write) -> None:
    path = write("model: a\noutput: b\ndata: text.txt\npruning:\n  ffn: [0.5]\n")
    with pytest.raises(ConfigError, match=r"(?s):3: data: input should be.*:5: pruning.ffn: input should be"):
        load_config(path)


def test_an_option_is_named_as_such() -> None:
    with pytest.raises(ConfigError, match=r"option: search.budget.foo: there is no cost 'foo'"):
        load_config(None, (), {**BASE, "search": {"budget": ["foo=3"]}})


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("search:\n  budget:\n    - params=0.8x\n    - params=0.7x\n", 5, 6),
        ("search:\n  budget:\n    - params<=1B\n    - memory=1GiB\n    - params<=2B\n", 5, 7),
    ],
)
def test_budgets_that_contradict_each_other_are_named_with_their_lines(
    write, text: str, first: int, second: int
) -> None:
    path = write(f"model: a\noutput: b\n{text}")
    with pytest.raises(ConfigError, match="two budgets contradict each other") as caught:
        load_config(path)
    assert f"({path}:{first})" in caught.value.what
    assert f"({path}:{second})" in caught.value.what


def test_a_budget_that_contradicts_itself_is_named_with_its_line(write) -> None:
    path = write("model: a\noutput: b\nsearch:\n  budget:\n    kv_heads: 100..40\n")
    with pytest.raises(ConfigError, match=rf"{path}:5: search.budget.kv_heads: 100..40: the lower bound is above"):
        load_config(path)


def test_a_budget_can_refer_to_another_key(write) -> None:
    path = write("model: a\noutput: b\nseed: 3\nsearch: {budget: ['kv_heads=${seed}', 'memory=1GiB']}\n")
    assert load_config(path).search.budget == {"kv_heads": 3.0, "memory": "1GiB"}


def test_the_environment_is_not_read(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYBLOCK_TEST_SECRET", "s3cret")
    path = write("model: ${oc.env:ANYBLOCK_TEST_SECRET}\noutput: b\n")
    with pytest.raises(ConfigError, match=rf"{path}:1: model: the resolver .* is not allowed") as caught:
        load_config(path)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match="is not allowed"):
        load_config(None, ["model=${oc.env:ANYBLOCK_TEST_SECRET}"], {"output": "b"})


def test_a_hook_can_be_named_by_its_path(write, registry: NameRegistry) -> None:
    path = write(
        """
        model: a
        output: b
        pruning:
          ffn:
            hook: anyblock.importance.channels.IndependentChannelContributionHook
            extra_hooks:
              - ${get_object:anyblock.importance.IterativeChannelContributionHook}
        """
    )
    ffn = load_config(path, registry=registry).pruning.ffn
    assert ffn.hook == "IndependentChannelContributionHook"
    assert ffn.extra_hooks == ("IterativeChannelContributionHook",)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "anyblock.importance.os.system"])
@pytest.mark.parametrize("form", ["hook: {}", "hook: '${{get_object:{}}}'", "extra_hooks: [{}]"])
def test_a_hook_that_nobody_registered_is_refused(write, registry: NameRegistry, name: str, form: str) -> None:
    path = write(f"model: a\noutput: b\npruning:\n  ffn:\n    {form.format(name)}\n")
    with pytest.raises(ConfigError, match=f"{path}:5.*{name}.* is not a registered"):
        load_config(path, registry=registry)


def test_classes_are_looked_up_only_when_one_is_named(write) -> None:
    path = write("model: a\noutput: b\npruning: {ffn: {hook: IndependentChannelContributionHook}}\n")
    code = f"""
import sys
from anyblock.config import load_config
load_config({str(path)!r})
print('torch' in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_model_says_which_family_a_name_belongs_to(write) -> None:
    pytest.importorskip("anyblock_llama")
    model = write('{"model_type": "llama"}', "teacher/config.json").parent
    path = write(
        """
        output: b
        pruning_mixin:
          _target_: pruning.ffn_intermediate_pruning_mixin.FFNIntermediatePruningMixIn
          layer_descriptor: {_target_: models.llama.llama_model_descriptor.LlamaFFNIntermediateLayerDescriptor}
        hook_class: ${get_object:utils.activation_hooks.hooks.IndependentChannelContributionHook}
        """
    )
    config = load_config(path, (), {"model": str(model)})
    assert config.pruning.ffn.hook == "IndependentChannelContributionHook"
    text = path.read_text().replace("models.llama.llama_", "models.qwen3.qwen3_")
    path.write_text(text)
    with pytest.raises(ConfigError, match="describes the layers of qwen3, and the family is llama"):
        load_config(path, (), {"model": str(model)})


@pytest.mark.parametrize("key", ["", "a b", "seed"])
def test_an_override_needs_a_value(key: str) -> None:
    with pytest.raises(UsageError):
        load_config(None, [key], BASE)


@pytest.mark.parametrize(
    ("value", "what", "hint"),
    [
        ("'${seed}'", "interpolation comes with", "pip install anyblock-puzzletron-config"),
        ("{sizes: ['x${seed}']}", "interpolation comes with", "pip install anyblock-puzzletron-config"),
        ("???", "pruning.ffn is ???", ""),
    ],
)
def test_a_value_that_stands_for_another_is_never_taken_as_it_is(write, monkeypatch, value, what, hint) -> None:
    monkeypatch.setattr("anyblock.config.dialects.dialects", lambda extensions: [])
    with pytest.raises(ConfigError) as caught:
        load_config(write(f"model: a\noutput: b\npruning:\n  ffn: {value}\n"))
    assert what in caught.value.what
    assert ":4: pruning.ffn" in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["defaults: [base]\n", "mip: {}\n", "pruning_mixin: {_target_: A}\n"])
def test_a_file_in_a_dialect_that_is_missing_says_what_to_install(write, monkeypatch, text: str) -> None:
    monkeypatch.setattr("anyblock.config.dialects.dialects", lambda extensions: [])
    with pytest.raises(ConfigError, match="a key of another tool's files") as caught:
        load_config(write(f"model: a\noutput: b\n{text}"))
    assert caught.value.hint == "python -m pip install anyblock-puzzletron-config"
