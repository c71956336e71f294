"""A family whose configuration and model classes transformers does not have: its adapter brings them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from anyblock.contract.hookspecs import hookimpl
from anyblock.descriptors import DenseDescriptor
from anyblock.errors import PluginError
from anyblock.family import ModelFamily
from anyblock_tests.byte_tokenizer import BYTE_VOCABULARY, byte_tokenizer
from anyblock_tests.wheels import anyblock, install_wheel
from transformers import PreTrainedConfig, PreTrainedModel

SOURCE = Path(__file__).parent / "assets" / "anyblock-pebble"
TEXT = Path(__file__).parents[4] / "demo" / "text" / "calibration.txt"
RUN = ["--data", "text.txt", "data.block_size=32", "data.calibration_tokens=256", "data.scoring_tokens=64"]
RUN += ["data.evaluation_tokens=128", "pruning.ffn.sizes=[0.5]", "search.refine_rounds=0"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder that the wheel is installed in, and one with a random model of this family and a text."""
    folder = tmp_path_factory.mktemp("pebble")
    site = install_wheel(SOURCE, folder)
    (folder / "text.txt").write_text(TEXT.read_text(encoding="utf-8")[:2000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        from anyblock_pebble.model import PebbleConfig, PebbleForCausalLM

        torch.manual_seed(0)
        # What `config.json` leaves out are the defaults of a class that transformers does not have.
        PebbleForCausalLM(PebbleConfig(vocab_size=BYTE_VOCABULARY, bos_token_id=0, eos_token_id=1)).save_pretrained(
            folder / "teacher"
        )
        for name in [name for name in sys.modules if name.partition(".")[0] == "anyblock_pebble"]:
            del sys.modules[name]
    byte_tokenizer().save_pretrained(folder / "teacher")
    return site, folder


def test_every_command_opens_its_checkpoints(pebble: tuple[Path, Path]) -> None:
    site, folder = pebble
    assert "pebble" in anyblock(site, folder, "inspect", "teacher")
    anyblock(site, folder, "compress", "teacher", "child", "--budget", "params=0.8x", *RUN)
    blocks = json.loads((folder / "child" / "config.json").read_text())["block_configs"]
    assert any(block["ffn"]["no_op"] or block["ffn"]["intermediate_size"] == 24 for block in blocks)
    anyblock(site, folder, "generate", "teacher", "ab", "--max-new-tokens", "3")
    assert "perplexity" in anyblock(site, folder, "evaluate", "child", "--data", "text.txt")


def test_without_its_adapter_a_checkpoint_is_refused_by_its_model_type(pebble: tuple[Path, Path]) -> None:
    site, folder = pebble
    said = anyblock(site, folder, "evaluate", "teacher", "--data", "text.txt", code=2, ANYBLOCK_PLUGINS="")
    assert "pebble" in said


def test_looking_the_adapter_up_imports_no_model(pebble: tuple[Path, Path]) -> None:
    code = "import sys; from anyblock import extensions as e; e.installed_plugins().load('pebble'); "
    code += "assert not {'torch', 'transformers', 'anyblock_pebble.model'} & set(sys.modules)"
    site, folder = pebble
    subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(site)}, check=True)


class Config(PreTrainedConfig):
    model_type = "pebble"


class Misspelt(PreTrainedConfig):
    model_type = "peble"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"AutoModelForCausalLM": PreTrainedModel}, "returned no AutoConfig"),
        ({"AutoConfig": Config, "AutoModelForCausalML": PreTrainedModel}, "AutoModelForCausalML"),
        ({"AutoConfig": Misspelt}, "peble"),
        ([Config], "returned a list"),
    ],
)
def test_classes_that_cannot_be_registered_are_refused_by_name(given: object, said: str) -> None:
    class Descriptor(DenseDescriptor):
        decoder_layer = "torch.nn.Identity"

        @hookimpl
        def model_classes(self) -> object:
            return given

    with pytest.raises(PluginError, match="model_classes") as caught:
        ModelFamily.from_descriptor(Descriptor, model_type="pebble")
    assert said in str(caught.value)
