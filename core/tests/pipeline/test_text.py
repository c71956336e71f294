"""The text of a run: packed for every stage as the model's tokenizer begins a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anyblock import evaluate
from anyblock.calibration import mixture
from anyblock.config import RunConfig
from anyblock.errors import InputError, OutputExistsError, UsageError
from anyblock.pipeline.compress import CompressResult, compress
from anyblock.run.run_folder import RunFolder
from anyblock.stages import data
from anyblock_tests.byte_tokenizer import byte_model, byte_tokenizer
from safetensors.torch import load_file

BOS, EOS = 0, 1


def run(settings: dict[str, Any], **changes: Any) -> CompressResult:
    return compress(RunConfig.model_validate(settings | changes), overwrite=True)


def reran(result: CompressResult) -> set[str]:
    return {stage.name for stage in result.summary.stages if not stage.reused}


def tokens_of(result: CompressResult) -> dict[str, Any]:
    return load_file(RunFolder(result.run).result("data", "tokens.safetensors"))


@pytest.fixture
def byte_settings(settings: dict[str, Any], text_file: Path, tmp_path: Path) -> dict[str, Any]:
    """A run on a model of bytes, whose tokenizer puts BOS in front, with a text of its own for the evaluation."""
    other = tmp_path / "evaluation.txt"
    other.write_text(text_file.read_text()[::-1])
    settings["model"] = str(byte_model(tmp_path / "model", num_key_value_heads=2))
    settings["data"]["evaluation"] = str(other)
    return settings


def test_every_window_of_every_stage_begins_with_bos(byte_settings: dict[str, Any]) -> None:
    result = run(byte_settings)
    found = tokens_of(result)
    for part, windows in (("calibration", 16), ("scoring", 4), ("evaluation", 4)):
        assert found[part].shape == (windows, 32)
        assert (found[part][:, 0] == BOS).all()
        assert (found[part][:, 1:] > EOS).all()
    text = Path(byte_settings["data"]["path"]).read_bytes()
    ids = byte_tokenizer()(text[: 16 * 31].decode(), add_special_tokens=False, verbose=False)["input_ids"]
    assert found["calibration"][:, 1:].flatten().tolist() == ids
    assert "BOS in front of each" in (result.run / "report.md").read_text()

    stage = result.evaluation
    assert stage is not None
    assert (stage.tokens, stage.predicted, stage.bos) == (4 * 31, 4 * 31, True)
    alone = evaluate(
        byte_settings["output"],
        teacher=byte_settings["model"],
        data=byte_settings["data"]["evaluation"],
        block_size=32,
        max_tokens=4 * 31,
    )
    assert alone.data_key == stage.data_key
    assert (alone.tokens, alone.predicted, alone.windows) == (stage.tokens, stage.predicted, stage.windows)
    assert alone.loss == pytest.approx(stage.loss, rel=1e-5)
    assert alone.kl_per_token == pytest.approx(stage.kl_per_token, rel=1e-4)


def test_documents_are_apart_in_a_run(byte_settings: dict[str, Any], tmp_path: Path) -> None:
    byte_model(Path(byte_settings["model"]), num_key_value_heads=2, eos=True)
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": f"Document {number}.\nIt ends."}) + "\n" for number in range(90)))
    result = run(byte_settings, data=byte_settings["data"] | {"path": str(documents)})
    stream = tokens_of(result)["calibration"][:, 1:].flatten().tolist()
    ends = [place for place, token in enumerate(stream[:-1]) if token == EOS]
    assert len(ends) > 15
    assert [stream[end + 1] for end in ends] == [BOS] * len(ends)
    assert stream[: ends[0]] == byte_tokenizer(bos=False)("Document 0.\nIt ends.")["input_ids"]


def test_a_run_whose_text_was_packed_otherwise_is_packed_anew(
    byte_settings: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(data, "_PACKING", "BOS in front of the first window only")
        patch.setattr(mixture, "pack_text", lambda text, tokenizer, *args, **options: _before(text, *args, **options))
        run(byte_settings)
    again = run(byte_settings)
    assert {"data", "importance", "scores", "evaluation"} <= reran(again)
    assert reran(run(byte_settings)) == set()


def _before(text: Any, block_size: int, *, max_tokens: int) -> Any:
    """Pack as was done before: BOS once, at the very start."""
    from anyblock.calibration.packing import pack_tokens
    from torch import tensor

    ids = byte_tokenizer()(str(text), verbose=False)["input_ids"]
    return pack_tokens(tensor(ids[:max_tokens]), block_size)


def test_without_bos_an_older_run_keeps_what_follows_from_the_tokens(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(data, "_PACKING", "as before")
        found = tokens_of(run(settings))
    assert found.keys() == {"calibration", "scoring", "evaluation"}
    assert reran(run(settings)) == {"data"}


def test_a_token_without_an_embedding_is_refused_before_anything_is_written(byte_settings: dict[str, Any]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["walks"])
    tokenizer.save_pretrained(byte_settings["model"])
    with pytest.raises(InputError, match=r"token id 258 \('walks'\) is outside the model's vocabulary of 258"):
        run(byte_settings)
    assert not Path(f"{byte_settings['output']}.run").exists()


def test_a_text_of_one_token_is_refused_whatever_stands_in_front_of_windows(
    byte_settings: dict[str, Any], tmp_path: Path
) -> None:
    dull = tmp_path / "dull.txt"
    dull.write_text(("a" * 99 + "\n") * 40)
    with pytest.raises(InputError, match="of the calibration text are the token"):
        run(byte_settings, data=byte_settings["data"] | {"path": str(dull), "block_size": 8})


def test_a_mixture_of_files(byte_settings: dict[str, Any], tmp_path: Path) -> None:
    """Two thirds of the windows are of one file, and each file's own end is evaluated on."""
    (tmp_path / "a.txt").write_text("a b\n" * 900)
    records = [{"n": number, "answer": "x y\n" * 30} for number in range(30)]
    (tmp_path / "b.json").write_text(json.dumps(records))
    sources = [{"path": str(tmp_path / "a.txt"), "weight": 2}, {"path": str(tmp_path / "b.json"), "field": "answer"}]
    given = {**byte_settings["data"], "path": sources, "evaluation": None, "calibration_tokens": 384}
    found = tokens_of(run(byte_settings, data=given))
    tokenizer = byte_tokenizer()
    (letter,) = tokenizer("x", add_special_tokens=False)["input_ids"]
    for part, windows in (("calibration", 12), ("evaluation", 4)):
        mine = int((found[part] == letter).any(1).sum())
        assert len(found[part]) == windows
        assert mine == (4 if part == "calibration" else 1)


def test_a_field_that_is_not_there_is_refused_before_anything_is_written(
    byte_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "b.json").write_text(json.dumps([{"answer": "x"}]))
    given = {**byte_settings["data"], "path": str(tmp_path / "b.json"), "field": "text"}
    with pytest.raises(InputError, match=r"b\.json, record 1: no string under 'text'"):
        run(byte_settings, data=given)
    assert not Path(byte_settings["output"]).exists()


def test_a_child_from_another_text_is_in_the_way_before_any_work(byte_settings: dict[str, Any], tmp_path: Path) -> None:
    """Another text for the evaluation alone is not in the way."""
    first = compress(RunConfig.model_validate(byte_settings))
    other = tmp_path / "other.txt"
    other.write_text("The river runs under the old bridge. " * 200)
    again = compress(
        RunConfig.model_validate({**byte_settings, "data": {**byte_settings["data"], "evaluation": str(other)}})
    )
    assert again.child.fingerprint() == first.child.fingerprint()
    changed = {**byte_settings, "data": {**byte_settings["data"], "path": str(other)}}
    before = {path: path.stat().st_mtime_ns for path in first.run.rglob("*")}
    with pytest.raises(OutputExistsError, match="made it from another text"):
        compress(RunConfig.model_validate(changed))
    assert {path: path.stat().st_mtime_ns for path in first.run.rglob("*")} == before
    assert compress(RunConfig.model_validate(changed), overwrite=True).child.path == first.child.path


def test_one_batch_is_refused_before_any_work(byte_settings: dict[str, Any]) -> None:
    given = {**byte_settings["data"], "calibration_tokens": 64, "scoring_tokens": 64}
    with pytest.raises(UsageError, match="1 calibration batch is too few"):
        compress(RunConfig.model_validate({**byte_settings, "data": given}))
    assert not Path(byte_settings["output"] + ".run").exists()
