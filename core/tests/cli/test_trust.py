"""Code that comes with a checkpoint runs where `--trust-remote-code` allows it, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anyblock.cli import main
from anyblock_tests.byte_tokenizer import byte_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model whose tokenizer is a class of its own."""
    folder = tmp_path / "model"
    byte_model(folder)
    place = folder / "tokenizer_config.json"
    config = json.loads(place.read_text())
    config |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    place.write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\nclass Mine(PreTrainedTokenizerFast):\n    pass\n"
    )
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "MODEL", "a text", "--max-new-tokens", "2"],
        ["evaluate", "MODEL", "--data", "TEXT", "--block-size", "16"],
        ["compress", "MODEL", "OUT", "--data", "TEXT", "--budget", "params=0.9x", "search.refine_rounds=0",
         "data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=256", "data.evaluation_tokens=64"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_tokenizer_that_comes_as_code(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "text.txt").write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    places = {"MODEL": str(model), "TEXT": str(tmp_path / "text.txt"), "OUT": str(tmp_path / "out")}
    command = [places.get(argument, argument) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "mine.py" in said
    assert "--trust-remote-code" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as ended:
        main([*command, "--trust-remote-code"])
    assert not ended.value.code
