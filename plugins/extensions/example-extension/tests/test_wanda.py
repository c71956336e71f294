"""The hook against a brute-force count, and the extension as AnyBlock finds it."""

from __future__ import annotations

from importlib.metadata import distribution
from types import SimpleNamespace

import pytest
import torch
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig
from anyblock.family import get_family
from anyblock.importance import HOOKS, HookContext
from anyblock.plugins import PluginRegistry, PluginStatus
from anyblock_example_extension import WandaExtension
from anyblock_example_extension.wanda import WandaChannelContributionHook
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

BLOCK = BlockConfig(attention=AttentionConfig(num_key_value_heads=1), ffn=FFNConfig(intermediate_size=4))
CONTEXT = HookContext(config=SimpleNamespace(), block_config=BLOCK, layer_index=0, num_batches=1)


def run(module: nn.Module, batches: list[torch.Tensor]) -> WandaChannelContributionHook:
    hook = WandaChannelContributionHook(module, CONTEXT)
    handle = hook.attach()
    for batch in batches:
        module(batch)
    handle.remove()
    return hook


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    channels=st.integers(1, 7),
    outputs=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_scores_are_the_wanda_metric_summed_over_the_outputs(seed, channels, outputs, lengths):
    torch.manual_seed(seed)
    module = nn.Linear(channels, outputs)
    batches = [torch.randn(2, length, channels) * 3 for length in lengths]
    scores = run(module, batches).scores()
    tokens = [token for batch in batches for row in batch for token in row]
    for channel in range(channels):
        norm = sum(float(token[channel]) ** 2 for token in tokens) ** 0.5
        expected = sum(abs(module.weight[output, channel].item()) * norm for output in range(outputs))
        assert float(scores[channel]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert scores.dtype == torch.float32
    assert scores.shape == (channels,)


def test_one_outlier_outweighs_a_steady_channel_of_the_same_mean():
    module = nn.Linear(2, 1, bias=False)
    nn.init.ones_(module.weight)
    tokens = torch.ones(1, 16, 2)
    tokens[0, :, 1] = 0
    tokens[0, 0, 1] = 16
    steady, outlier = run(module, [tokens]).scores().tolist()
    assert outlier == pytest.approx(4 * steady)


def test_the_extension_adds_the_hook_to_a_family_by_name():
    registry = PluginRegistry.from_plugins({"llama": llama()}, {"wanda": WandaExtension})
    hooks = get_family("llama", registry=registry).importance_hooks()
    assert hooks["WandaChannelContributionHook"] is WandaChannelContributionHook
    assert set(HOOKS) < set(hooks)


def test_the_installed_distribution_registers_it():
    entries = distribution("anyblock-example-extension").entry_points
    assert {(entry.group, entry.name) for entry in entries} == {
        ("anyblock.extensions", "wanda"),
        ("anyblock.commands", "removed"),
    }
    found = [record for record in PluginRegistry.discover() if record.distribution == "anyblock-example-extension"]
    assert [record.status for record in found] == [PluginStatus.READY]
    (loaded,) = [entry.load() for entry in entries if entry.name == "wanda"]
    assert loaded is WandaExtension


def llama() -> type:
    from anyblock.descriptors import DenseDescriptor

    return type("Llama", (DenseDescriptor,), {"decoder_layer": "torch.nn.Identity"})
