"""A model and a tokenizer that come as code: every command takes `--trust-remote-code`, and runs nothing without it."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from anyblock.cli import main
from anyblock_tests.byte_tokenizer import BYTE_VOCABULARY, byte_tokenizer

CODE = Path(__file__).parent / "assets" / "nova"
AUTO = {"AutoConfig": "configuration_nova.NovaConfig", "AutoModel": "modeling_nova.NovaModel"}
AUTO |= {"AutoModelForCausalLM": "modeling_nova.NovaForCausalLM"}
SMALL = ["data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=128", "data.evaluation_tokens=64"]
SMALL += ["pruning.ffn.sizes=[0.5]", "search.refine_rounds=0"]
LOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True, dtype="auto").eval()
assert type(AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)).__name__ == "NovaTokenizer"
assert not any(name.partition(".")[0] == "anyblock" for name in sys.modules)
torch.save(model(torch.arange(20, 32)[None]).logits, sys.argv[2])
"""


@pytest.fixture
def nova(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint whose classes are in four files next to it; every one of them leaves a mark when it runs."""
    monkeypatch.setenv("NOVA_RAN", str(tmp_path / "ran"))
    folder = tmp_path / "nova"
    shutil.copytree(CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(tmp_path))
    modeling = importlib.import_module("nova.modeling_nova")
    torch.manual_seed(0)
    config = modeling.NovaConfig(vocab_size=BYTE_VOCABULARY, bos_token_id=0, eos_token_id=1, auto_map=AUTO)
    modeling.NovaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    place = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "NovaTokenizer", "auto_map": {"AutoTokenizer": [None, "tokenization_nova.NovaTokenizer"]}}
    place.write_text(json.dumps(json.loads(place.read_text()) | own))
    for name in [name for name in sys.modules if name.partition(".")[0] == "nova"]:
        del sys.modules[name]
    (tmp_path / "ran").unlink()
    (tmp_path / "text.txt").write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    yield folder
    for name in [name for name in sys.modules if name.startswith("checkpoint_code.nova")]:
        del sys.modules[name]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def installed(adapter: Path) -> Path:
    """Return what has to be on the path, so that the adapter is found as if pip had installed it."""
    known = adapter / "src" / "anyblock_nova-0.1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: anyblock-nova\nVersion: 0.1.0\nRequires-Dist: anyblock\n"
    )
    (known / "entry_points.txt").write_text("[anyblock.families]\nnova = anyblock_nova:NovaDescriptor\n")
    return known.parent


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "MODEL"],
        ["new-family", "MODEL"],
        ["conformance", "MODEL"],
        ["convert", "MODEL", "OUT"],
        ["compress", "MODEL", "OUT", "--infer-family", "--budget", "params=0.8x", "--data", "text.txt"],
        ["evaluate", "MODEL", "--data", "text.txt"],
        ["generate", "MODEL", "ab"],
        ["bench", "MODEL"],
        ["export", "MODEL", "OUT", "--format", "transformers"],
        ["push", "MODEL", "me/child", "--dry-run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_the_option_no_code_runs(
    nova: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    places = {"MODEL": nova, "OUT": tmp_path / "out"}
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert "wants to run code that comes with it: configuration_nova.py, modeling_nova.py" in said
    assert "--trust-remote-code" in said
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_command_refuses_and_with_the_option_works(
    nova: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, mark, child, export = (tmp_path / name for name in ("text.txt", "ran", "child", "export"))
    data = ["--data", text]
    commands: list[list[str | Path]] = [
        ["inspect", nova],
        ["convert", nova, tmp_path / "converted"],
        ["conformance", nova, "--full"],
        ["compress", nova, child, "--budget", "params=0.8x", *data, *SMALL],
        ["evaluate", nova, *data, "--block-size", "16"],
        ["generate", nova, "ab", "--max-new-tokens", "2"],
        ["bench", nova, "--prompt-length", "4", "--new-tokens", "2", "--repeats", "1"],
        ["inspect", child],
        ["convert", child, tmp_path / "again"],
        ["evaluate", child, "--teacher", nova, *data, "--block-size", "16"],
        ["generate", child, "ab", "--max-new-tokens", "2"],
        ["export", child, export, "--format", "transformers"],
        ["evaluate", export, *data, "--block-size", "16"],
        ["push", child, "me/child", "--dry-run"],
    ]
    for step, command in enumerate([["inspect", nova], ["new-family", nova, tmp_path / "adapter"], *commands]):
        capsys.readouterr()
        assert run(*command) == 2, command
        said = capsys.readouterr().err
        assert "_nova.py" in said, (command, said)
        assert "--trust-remote-code" in said, (command, said)
        assert not mark.exists(), command
        assert run(*command, "--trust-remote-code") == 0, (command, capsys.readouterr().err)
        if step == 1:
            monkeypatch.syspath_prepend(str(installed(tmp_path / "adapter")))
            assert run("families") == 0
        mark.unlink(missing_ok=True)
    assert (
        "Levels that are passed: structure, convert, build, prune, search."
        in (tmp_path / "adapter" / "README.md").read_text()
    )
    assert (export / "modeling_anyblock_own.py").is_file()
    assert not list(nova.rglob("__pycache__"))
    blocks = json.loads((child / "config.json").read_text())["block_configs"]
    assert any(block["ffn"]["intermediate_size"] != 48 or block["attention"]["no_op"] for block in blocks)

    from anyblock import load_model

    seen = torch.arange(20, 32)[None]
    with torch.no_grad():
        model = load_model(child, trust_remote_code=True)
        logits = model(seen).logits
        model.save_pretrained(tmp_path / "saved")
        assert torch.equal(load_model(tmp_path / "saved", trust_remote_code=True)(seen).logits, logits)
        assert torch.equal(load_model(tmp_path / "again", trust_remote_code=True)(seen).logits, logits)
        assert torch.equal(load_model(export, trust_remote_code=True)(seen).logits, logits)
    loaded = tmp_path / "logits.pt"
    done = subprocess.run([sys.executable, "-c", LOAD, export, loaded], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(loaded, weights_only=True), logits)


def test_other_code_for_the_same_model_type_is_refused(
    nova: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("new-family", nova, "--trust-remote-code", "--json") == 0
    other = shutil.copytree(nova, tmp_path / "other")
    (other / "layers_nova.py").write_text((other / "layers_nova.py").read_text() + "\nCHANGED = True\n")
    assert run("generate", other, "ab", "--trust-remote-code") == 2
    assert "layers_nova.py is not the code that this process has run" in capsys.readouterr().err
