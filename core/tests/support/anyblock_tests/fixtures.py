"""What tests of several parts share: a tiny Llama with random weights, on disk and converted, and a hub on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import anyblock_tests.hub

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def pytest_configure() -> None:
    # Every worker process shares two cores with the others.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the fault harnesses reached; with pytest-xdist only the reports of tests arrive here."""
    passed = terminalreporter.stats.get("passed", [])
    lines = [str(value) for report in passed for key, value in report.user_properties if key == "reached"]
    if lines:
        terminalreporter.section("faults")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def auto_classes() -> Iterator[None]:
    """Within a module transformers' `Auto` classes load children; afterwards they are as they were."""
    from anyblock import register_auto_classes
    from transformers.models.auto import auto_factory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_factory, "_get_model_class", auto_factory._get_model_class)
        register_auto_classes()
        yield


TRAINED = Path(__file__).parents[2] / "assets" / "tiny-llama"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference material beside the repository; tests that ask for it are skipped where it is absent."""
    override = os.environ.get("ANYBLOCK_SHARED")
    if override:
        found = Path(override)
    else:
        root = next((folder for folder in Path(__file__).parents if (folder / "noxfile.py").exists()), Path("/nowhere"))
        found = root.parent / "shared"
    if not found.is_dir():
        pytest.skip("the reference material is not on this machine")
    return found


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory: 3 layers, hidden 32, 4 query and 2 key-value heads, biases, weights far from zero."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (1.0 if parameter.dim() == 1 else 0.0) * 0.5)
    folder = tmp_path_factory.mktemp("models") / "llama"
    model.save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: 95 printable ones, and one for anything else."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0} | {chr(32 + index): index + 1 for index in range(95)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture(scope="session")
def teacher_dir(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`llama_dir` as a subblock checkpoint."""
    from anyblock import convert_model

    return convert_model(llama_dir, tmp_path_factory.mktemp("converted") / "teacher")


@pytest.fixture(scope="session")
def brink_dir(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted Llama that float16 holds without the attention of one layer, and not without those of two.

    The attention of each layer takes 4e4 off the hidden state, and its ffn adds them again.
    """
    from anyblock import convert_model
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(llama_dir)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias[0] = -4e4
            layer.mlp.down_proj.bias[0] = 4e4
    folder = tmp_path_factory.mktemp("brink")
    model.save_pretrained(folder / "hf")
    letter_tokenizer().save_pretrained(folder / "hf")
    return convert_model(folder / "hf", folder / "teacher")


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids [2, 24] of the tiny vocabulary."""
    return torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def trained_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained Llama in `assets` as a subblock checkpoint."""
    from anyblock import convert_model

    return convert_model(TRAINED, tmp_path_factory.mktemp("trained") / "teacher")


@pytest.fixture(scope="session")
def trained_child(trained_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layer 0 lacks its attention, 1 both halves, 2 and 5 their ffn; 3 has one kv head, 4 a narrow ffn."""
    from anyblock import get_family
    from anyblock.candidates.candidate import NO_OP, Candidate
    from anyblock.candidates.candidate_weights import CandidateWeights
    from anyblock.checkpoint.subblocks import SubblockCheckpoint
    from anyblock.modeling.skeleton import load_hf_config
    from anyblock.realize.realize import realize

    teacher, family = SubblockCheckpoint.open(trained_dir), get_family("llama")
    block = teacher.block_configs[0]
    chosen = [
        Candidate(0, "attention", NO_OP, 0, block.with_attention(no_op=True)),
        Candidate(1, "attention", NO_OP, 0, block.with_attention(no_op=True)),
        *(Candidate(layer, "ffn", NO_OP, 0, block.with_ffn(no_op=True)) for layer in (1, 2, 5)),
        Candidate(3, "attention", "kv_heads", 1, block.with_attention(num_key_value_heads=1)),
        Candidate(4, "ffn", "ffn_intermediate", 96, block.with_ffn(intermediate_size=96)),
    ]
    orders = {(3, "kv_heads"): torch.arange(3), (4, "ffn_intermediate"): torch.arange(288)}
    weights = CandidateWeights(teacher, family, load_hf_config(trained_dir), orders)
    return realize(teacher, chosen, weights, tmp_path_factory.mktemp("trained") / "child")


@pytest.fixture
def server() -> Any:
    """The module of the hub."""
    return anyblock_tests.hub


@pytest.fixture
def hub() -> Iterator[anyblock_tests.hub.Hub]:
    """A running hub without repositories."""
    with anyblock_tests.hub.Hub().running() as hub:
        yield hub
