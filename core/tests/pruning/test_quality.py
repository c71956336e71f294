"""On a trained model: scores point in the right direction, and repair helps on text that it was not fitted on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.importance import (
    GramStatistic,
    HookContext,
    IndependentChannelContributionHook,
    IndependentKvHeadContributionHook,
    IterativeChannelContributionHook,
)
from anyblock.pruning.layouts import dense_mixins
from anyblock.pruning.ordering import best_first
from anyblock.pruning.repair_child import repair_child

pytestmark = pytest.mark.shared
_BATCHES = 12


@pytest.fixture(scope="module")
def stories(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[torch.Tensor]]:
    """A trained Llama of 260,000 parameters, and stories that it wrote itself: `_BATCHES` to score on, two to judge by."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("stories") / "teacher"
    shutil.copytree(shared_dir / "models" / "stories260k", folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    start = torch.full((4 * (_BATCHES + 2), 1), model.config.bos_token_id)
    text = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, max_new_tokens=96, pad_token_id=0
    )
    return folder, model, list(text.split(4))


def _calibrate(model: Any, module: str, hooks: list[Any], text: list[torch.Tensor], block: Any) -> list[list[Any]]:
    """Return every hook of every layer, filled in one sweep."""
    made = [
        [hook(layer.get_submodule(module), HookContext(model.config, block, index, _BATCHES)) for hook in hooks]
        for index, layer in enumerate(model.model.layers)
    ]
    handles = [hook.attach() for layer in made for hook in layer]
    with torch.no_grad():
        for batch in text[:_BATCHES]:
            model(batch)
    for handle in handles:
        handle.remove()
    return made


def _divergence(child: Any, teacher: Any, text: list[torch.Tensor]) -> float:
    """Mean KL(teacher || child) a token, on text that was held out."""
    total = 0.0
    with torch.no_grad():
        for batch in text[_BATCHES:]:
            wanted, found = (model(batch).logits.log_softmax(dim=-1).flatten(0, 1) for model in (teacher, child))
            total += float(torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean"))
    return total / 2


@pytest.mark.parametrize("hook", [IterativeChannelContributionHook, IndependentChannelContributionHook])
def test_ffn_channels(hook: Any, stories: Any, tools: Any) -> None:
    folder, model, text = stories
    teacher = tools.Teacher(folder, model.config, tuple(range(5)), tools.block_of(model.config))
    mixin = dense_mixins()["ffn_intermediate"]
    child = mixin.resize(teacher.block, 86, model.config)
    filled = _calibrate(model, "mlp.down_proj", [hook, GramStatistic], text, teacher.block)
    found = {}
    for name, sign in (("best", 1), ("worst", -1)):
        orders = [best_first(sign * scores.scores()) for scores, _ in filled]
        ordered = teacher.apply(lambda i, t, o=orders: mixin.sort(i, t, teacher.block, o[i], model.config))
        found[name] = _divergence(
            teacher.load(teacher.narrowed(mixin, child, ordered), intermediate_size=86), model, text
        )
        repaired = teacher.apply(
            lambda i, t, o=orders: repair_child(
                mixin, i, t, teacher.block, child, model.config, o[i], filled[i][1].fit, filled[i][1].held_out
            )[0],
            ordered,
        )
        found[f"{name} repaired"] = _divergence(teacher.load(repaired, intermediate_size=86), model, text)
    assert found["best"] < 0.75 * found["worst"], found
    assert found["best repaired"] < 0.9 * found["best"], found
    assert found["worst repaired"] < 0.9 * found["worst"], found


@pytest.mark.parametrize("kind", ["kv_heads", "query_groups"])
def test_heads(kind: str, stories: Any, tools: Any) -> None:
    folder, model, text = stories
    teacher = tools.Teacher(folder, model.config, tuple(range(5)), tools.block_of(model.config))
    mixin = dense_mixins()[kind]
    child = mixin.resize(teacher.block, 2, model.config)
    filled = _calibrate(
        model, "self_attn.o_proj", [IndependentKvHeadContributionHook, GramStatistic], text, teacher.block
    )
    changes = {"num_key_value_heads": 2, "head_dim": 8}
    if kind == "query_groups":
        changes["num_attention_heads"] = 4
    found = {}
    for name, sign in (("best", 1), ("worst", -1)):
        orders = [best_first(sign * scores.scores()) for scores, _ in filled]
        ordered = teacher.apply(lambda i, t, o=orders: mixin.sort(i, t, teacher.block, o[i], model.config))
        found[name] = _divergence(teacher.load(teacher.narrowed(mixin, child, ordered), **changes), model, text)
        repaired = teacher.apply(
            lambda i, t, o=orders: repair_child(
                mixin, i, t, teacher.block, child, model.config, o[i], filled[i][1].fit, filled[i][1].held_out
            )[0],
            ordered,
        )
        found[f"{name} repaired"] = _divergence(teacher.load(repaired, **changes), model, text)
    assert found["best"] < found["worst"], found
    assert found["best repaired"] < found["best"], found
