"""`anyblock generate`: with a child, and with prompts that a model cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyblock.cli import main
from anyblock_tests.byte_tokenizer import byte_model, byte_tokenizer


def generate(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["generate", *arguments, "--max-new-tokens", "3"])
    return int(stop.value.code or 0)


def test_a_child_continues_a_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(str(run.with_suffix("")), "Once upon") == 0
    assert capsys.readouterr().out.startswith("Once upon")


def test_prompts_that_a_model_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = byte_model(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["First"])
    tokenizer.save_pretrained(model)
    assert generate(str(model), "Citizen") == 0
    capsys.readouterr()
    for prompt, says in (
        ("First Citizen", "token id 258 ('First') is outside"),
        ("a\udcff", "half of a surrogate pair, \\udcff"),
    ):
        assert generate(str(model), prompt) == 2
        assert says in capsys.readouterr().err
