"""The page about the contract, run: seven adapters against tiny models of the real architectures.

What is proved for each: every tensor has one group; the stock model is what an unchanged list of block configs builds; a
removed half is gone with every parameter of its own and equals the residual path, with a cache and without; and a child of
every pruning kind equals the teacher with the removed units silenced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock.checkpoint.classify import classify
from anyblock.checkpoint.config_view import config_view
from anyblock.contract.blocks import HALVES, BlockConfig
from anyblock.errors import UnsupportedModelError
from anyblock.family import ModelFamily
from anyblock.modeling.heterogeneous import heterogeneous
from anyblock.modeling.skeleton import build_skeleton, model_class
from anyblock.modeling.weights import WeightMap
from anyblock.plugins.contract import SPECS
from safetensors import safe_open
from torch.func import functional_call

PAGE = Path(__file__).parents[2] / "docs" / "contract.md"
CLOSE = {"atol": 2e-6, "rtol": 0.0}


def sketches() -> dict[str, type]:
    """Run every block of code on the page, and return the one descriptor that each defines."""
    found = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        namespace: dict[str, Any] = {"__name__": "page"}
        exec(compile(code, str(PAGE), "exec"), namespace)
        (cls,) = [value for value in namespace.values() if isinstance(value, type) and value.__module__ == "page"]
        found[cls.__name__] = cls
    return found


SKETCHES = sketches()


@dataclass
class Subject:
    """A tiny model of one family, and its checkpoint as transformers saves it."""

    family: ModelFamily
    config: Any
    view: Any
    model: Any
    blocks: list[BlockConfig]
    tensors: dict[str, torch.Tensor]
    groups: dict[str, list[str]]
    tokens: torch.Tensor

    def build(self, blocks: list[BlockConfig]) -> Any:
        with heterogeneous(self.family, blocks):
            return model_class(self.config)._from_config(self.config).eval()

    def load(self, blocks: list[BlockConfig], tensors: dict[str, torch.Tensor]) -> tuple[Any, WeightMap]:
        """Build a child from checkpoint tensors, as AnyBlock's own loader does."""
        model = build_skeleton(self.family, self.config, blocks)
        weights = WeightMap(model)
        weights.assign(tensors, device="cpu", where=self.family.model_type)
        model.tie_weights()
        self.family.init_rotary_embedding(model, torch.device("cpu"), model.dtype)
        return model, weights

    def halves(self) -> list[tuple[int, str]]:
        return [(i, half) for i, block in enumerate(self.blocks) for half in HALVES if not block.half(half).no_op]

    def without(self, index: int, half: str) -> list[BlockConfig]:
        blocks = list(self.blocks)
        blocks[index] = blocks[index].with_half(half, no_op=True)
        return blocks


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return model(input_ids=tokens).logits


def make(name: str, folder: Path) -> Subject:
    torch.manual_seed(0)
    family = ModelFamily.from_descriptor(SKETCHES[name], model_type=name)
    config = family.conformance_config()
    model = model_class(config)._from_config(config).eval()
    for parameter in model.parameters():
        # Biases and norms start as zeros and ones, under which much would go unseen.
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.05
    model.save_pretrained(folder)
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    # As it is published; transformers 5.15 saves it under another name.
    tensors = {key.replace("backbone.embedding.", "backbone.embeddings."): tensor for key, tensor in tensors.items()}
    view = config_view(folder)
    layers = family.language_model_config(view).num_hidden_layers
    groups = classify(tensors, family.layer_name_predicates(layers, view), family=name)
    blocks = family.create_block_configs(view)
    return Subject(family, config, view, model, blocks, tensors, groups, torch.randint(0, 50, (2, 9)))


@pytest.fixture(scope="module", params=sorted(SKETCHES))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return make(request.param, tmp_path_factory.mktemp("page"))


def test_the_page_names_every_hook_with_its_arguments():
    text = PAGE.read_text(encoding="utf-8")
    for spec in SPECS.values():
        assert f"| `{spec}` |" in text
        assert re.search(rf"^\*\*.*`{spec.name}`.*\*\*", text, re.MULTILINE) or spec.name.endswith("_name"), spec.name
    assert set(SKETCHES) == {"Llama", "Gemma3", "GptOss", "Qwen3VLMoe", "DeepseekV3", "NemotronH", "Bloom"}


def test_every_tensor_has_a_group_and_every_half_a_file(subject):
    named = {(int(group.split("_")[1]), group.split("_")[2]) for group in subject.groups if group.startswith("block_")}
    assert named == set(subject.halves())
    assert {"embeddings", "lm_head"} <= set(subject.groups)
    assert sum(map(len, subject.groups.values())) == len(subject.tensors)


def test_block_configs_are_the_same_from_the_file_and_from_transformers(subject):
    assert subject.family.create_block_configs(subject.config) == subject.blocks


def test_unchanged_block_configs_build_the_stock_model(subject):
    child = subject.build(subject.blocks)
    stock = subject.model.state_dict()
    assert {name: tensor.shape for name, tensor in child.state_dict().items()} == {
        name: tensor.shape for name, tensor in stock.items()
    }
    child.load_state_dict(stock)
    torch.testing.assert_close(logits(child, subject.tokens), logits(subject.model, subject.tokens), **CLOSE)


def test_a_removed_half_is_gone_and_is_the_residual_path(subject):
    stock = subject.model.state_dict()
    layer_name = subject.family.layer_block_name
    for index, half in subject.halves():
        child = subject.build(subject.without(index, half))
        missing, gone = child.load_state_dict(stock, strict=False)
        assert not missing
        prefix = f"{layer_name(index)}."
        assert gone
        assert all(name.startswith(prefix) for name in gone)
        # The half's file and the parameters that are gone are the same numbers.
        group = subject.groups[f"block_{index}_{half}"]
        assert sum(subject.tensors[name].numel() for name in group) == sum(stock[name].numel() for name in gone)
        # A half whose every weight is zero adds nothing to the residual stream.
        silenced = {name: torch.zeros_like(stock[name]) for name in gone}
        with torch.no_grad():
            teacher = functional_call(subject.model, silenced, kwargs={"input_ids": subject.tokens}).logits
        torch.testing.assert_close(logits(child, subject.tokens), teacher, **CLOSE)
        torch.testing.assert_close(cached_logits(child, subject.tokens), teacher, **CLOSE)


@torch.no_grad()
def cached_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of decoding token by token behind a prompt of five."""
    output = model(input_ids=tokens[:, :5], use_cache=True)
    parts = [output.logits]
    for position in range(5, tokens.shape[1]):
        step = tokens[:, position : position + 1]
        output = model(input_ids=step, past_key_values=output.past_key_values, use_cache=True)
        parts.append(output.logits)
    return torch.cat(parts, 1)


def test_layers_without_both_halves_pass_their_input_on_and_keep_no_parameter(subject):
    child = subject.build([block.with_attention(no_op=True).with_ffn(no_op=True) for block in subject.blocks])
    seen = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        seen.append((given, output[0] if isinstance(output, tuple) else output))

    for index in range(len(subject.blocks)):
        layer = child.get_submodule(subject.family.layer_block_name(index))
        assert not list(layer.named_parameters())
        layer.register_forward_hook(keep, with_kwargs=True)
    logits(child, subject.tokens)
    assert len(seen) == len(subject.blocks)
    assert all(torch.equal(given, passed) for given, passed in seen)


def test_a_pruned_child_is_the_teacher_with_the_removed_units_silenced(subject):
    text = subject.family.language_model_config(subject.view)
    teacher, weights = subject.load(subject.blocks, subject.tensors)
    expected = logits(teacher, subject.tokens)
    torch.testing.assert_close(expected, logits(subject.model, subject.tokens), **CLOSE)

    def with_tensors(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        weights.assign(tensors, device="cpu", where="the teacher")
        return logits(teacher, subject.tokens)

    children = 0
    for mixin, index, block in prunable(subject):
        sizes = [size for size in mixin.legal_sizes(block, text) if size < mixin.size(block)]
        if not sizes:
            continue
        children += 1
        blocks = list(subject.blocks)
        blocks[index] = mixin.resize(block, sizes[0], text)
        own = {name: subject.tensors[name] for name in subject.groups[f"block_{index}_{mixin.half}"]}
        # The same order in every run: by chance, an order may keep every expert that these few tokens are routed to.
        order = torch.randperm(mixin.size(block), generator=torch.Generator().manual_seed(index))
        best_first = mixin.sort(index, own, block, order, text)
        torch.testing.assert_close(with_tensors(best_first), expected, **CLOSE)
        rest = {name: tensor for name, tensor in subject.tensors.items() if name not in own}
        narrowed = mixin.narrow(index, best_first, block, blocks[index], text)
        pruned = logits(subject.load(blocks, rest | narrowed)[0], subject.tokens)
        assert not torch.equal(pruned, expected)
        try:
            masked = mixin.mask(index, best_first, block, blocks[index], text)
        except UnsupportedModelError:
            # A router without biases has nothing that could silence an expert.
            assert mixin.kind == "experts_removal"
        else:
            torch.testing.assert_close(pruned, with_tensors(masked), **CLOSE)
        with_tensors(own)
    assert children or subject.family.model_type == "Bloom"


def prunable(subject: Subject) -> list[tuple[Any, int, BlockConfig]]:
    """Return, for every kind, one layer of each shape that it applies to."""
    layers = {block: index for index, block in enumerate(subject.blocks)}
    mixins = subject.family.pruning_mixins().values()
    return [
        (mixin, index, block)
        for mixin in mixins
        for block, index in layers.items()
        if mixin.half in HALVES and mixin.applies_to(block)
    ]


def test_costs_of_the_cache_are_counted_for_every_layer(subject):
    specs = [subject.family.cache_spec(subject.view, block, index) for index, block in enumerate(subject.blocks)]
    for spec, block in zip(specs, subject.blocks, strict=True):
        assert (spec.elements(100) > 0) == (not block.attention.no_op)


def test_storage_that_is_not_the_models_own_is_computed():
    deepseek = ModelFamily.from_descriptor(SKETCHES["DeepseekV3"], model_type="deepseek_v3")
    names = ["a.weight", "a.weight_scale_inv", "norm.weight"]
    config = type("Config", (), {"quantization_config": {"weight_block_size": [2, 2]}})
    assert deepseek.dequantize(names, config) == {"a.weight": ("a.weight", "a.weight_scale_inv")}
    sources = {"a.weight": torch.ones(3, 4), "a.weight_scale_inv": torch.tensor([[2.0, 3.0], [5.0, 7.0]])}
    found = deepseek.dequantize_tensor("a.weight", sources, config)
    assert found.tolist() == [[2.0, 2.0, 3.0, 3.0], [2.0, 2.0, 3.0, 3.0], [5.0, 5.0, 7.0, 7.0]]
    assert deepseek.dequantize(["norm.weight"], config) == {}

    gpt_oss = ModelFamily.from_descriptor(SKETCHES["GptOss"], model_type="gpt_oss")
    stem = "model.layers.0.mlp.experts.down_proj"
    plan = gpt_oss.dequantize([f"{stem}_blocks", f"{stem}_scales", f"{stem}_bias"], None)
    assert plan == {stem: (f"{stem}_blocks", f"{stem}_scales")}
    # Sixteen bytes hold 32 four-bit floats, low half first; 0x2 is 1.0 and 0x4 is 2.0, and a scale of 128 doubles.
    blocks = torch.full((2, 3, 1, 16), 0x42, dtype=torch.uint8)
    scales = torch.full((2, 3, 1), 128, dtype=torch.uint8)
    found = gpt_oss.dequantize_tensor(stem, {f"{stem}_blocks": blocks, f"{stem}_scales": scales}, None)
    assert found.shape == (2, 32, 3)
    assert found[0, :4, 0].tolist() == [2.0, 4.0, 2.0, 4.0]
