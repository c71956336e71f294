"""lm-evaluation-harness: the same numbers through every door, and the same perplexity as ours."""

from __future__ import annotations

import json
import math
import random
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyblock import evaluate, export_child
from anyblock.calibration.packing import tokenize
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.errors import ExecutionError, InputError, UsageError
from anyblock_lm_eval.command import main
from anyblock_lm_eval.model import AnyBlockLM
from anyblock_lm_eval.tasks import evaluate_tasks
from anyblock_tests.byte_tokenizer import byte_model
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

PERPLEXITY = """
task: own_text
dataset_path: json
dataset_kwargs: {data_files: {test: texts.jsonl}, cache_dir: CACHE}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""
CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {test: [questions.jsonl]}, cache_dir: CACHE}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def words(count: int, seed: int) -> str:
    return " ".join(
        random.Random(seed).choices(["tree", "house", "the", "walks", "under", "a", "ö", "\n", "1,5"], k=count)
    )


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """One of a few tokens, one of less than the context of 512, and one of several windows."""
    return ["A tree.", words(80, 1), words(700, 2)]


@pytest.fixture(scope="module")
def task(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a task beside its data."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    questions = [{"question": f"{n}: the", "choices": [" tree", " a", " walks"], "answer": n % 3} for n in range(8)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))

    def write(content: str) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text(content.replace("CACHE", str(folder / "cache")))
        return path

    return write


def by_metric(results: dict[str, Any]) -> dict[str, float]:
    (scores,) = results["results"].values()
    return {key.partition(",")[0]: value for key, value in scores.items() if isinstance(value, float)}


def test_perplexity_is_ours_over_windows_with_one_token_of_context(
    trained_dir: Path, trained_child: Path, texts: list[str], task: Callable[[str], Path]
) -> None:
    """`loglikelihood_rolling` predicts every token once: BOS in front, windows of the context, one token of overlap."""
    models = {"teacher": trained_dir, "child": trained_child}
    scores = evaluate_tasks(models, [task(PERPLEXITY)], device="cpu", dtype="float32")
    found = {score.metric: score.values for score in scores}
    assert found.keys() == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
    tokenizer = load_tokenizer(trained_dir)
    for name, model in models.items():
        total, predicted = 0.0, 0
        for text in texts:
            ids = tokenize(text, tokenizer)
            ids = torch.cat([torch.tensor([tokenizer.bos_token_id]), ids])
            size = min(len(ids), 513)
            result = evaluate(model, data=ids, block_size=size, stride=size - 1, dtype="float32")
            assert result.predicted == len(ids) - 1
            assert (
                result.windows
                == f"{len(ids) - 1} predicted tokens, windows of {size} tokens sliding by a stride of {size - 1}"
            )
            total += result.loss * result.predicted
            predicted += result.predicted
        assert predicted > 2 * 513
        counts = {
            "word_perplexity": sum(len(re.split(r"\s+", text)) for text in texts),
            "byte_perplexity": sum(len(text.encode()) for text in texts),
        }
        for metric, count in counts.items():
            assert found[metric][name] == pytest.approx(math.exp(total / count), rel=1e-5)
        assert found["bits_per_byte"][name] == pytest.approx(total / counts["byte_perplexity"] / math.log(2), rel=1e-5)


def log_likelihood(model: HFLM, texts: list[str]) -> float:
    requests = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    return sum(model.loglikelihood_rolling(requests, disable_tqdm=True))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize("length", [9, 63, 64, 315, 400], ids=lambda length: f"{length} tokens")
def test_with_bos_the_number_is_that_of_lm_eval(kind: str, length: int, tmp_path: Path) -> None:
    """lm_eval's own rolling windows have BOS in front of a document only, so each window is a document of its own to it."""
    pytest.importorskip(f"anyblock_{kind.removesuffix('3_text')}")
    folder = byte_model(tmp_path / "model", kind)
    text = "".join(random.Random(length).choices("abc de,.\n", k=length))
    (tmp_path / "text.txt").write_text(text)
    result = evaluate(folder, data=tmp_path / "text.txt", dtype="float32")
    size = min(64, length + 1) - 1
    assert (result.block_size, result.predicted, result.bos) == (size + 1, length, True)

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), load_tokenizer(folder)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, add_bos_token=False, max_length=size)
    whole = [text[start : start + size] for start in range(0, length - length % size, size)]
    expected = log_likelihood(stock, whole)
    if rest := length % size:  # the last window is moved back; what was counted before is context
        context, last = tokenizer(text[-size:-rest]).input_ids, tokenizer(text[-rest:]).input_ids[1:]
        ((found, _),) = stock._loglikelihood_tokens([(None, context, last)], disable_tqdm=True)
        expected += found
    assert result.loss * result.predicted == pytest.approx(-expected, rel=1e-5)
    ours = AnyBlockLM(str(folder), device="cpu", dtype="float32", max_length=size)
    assert log_likelihood(ours, [text]) == pytest.approx(expected, rel=1e-5)
    assert log_likelihood(ours, [text, text, ""]) == pytest.approx(2 * expected, rel=1e-5)


def test_with_bos_a_task_gives_the_perplexity_of_a_text(
    texts: list[str], task: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = byte_model(tmp_path / "model")
    scores = evaluate_tasks({"model": folder}, [task(PERPLEXITY)], device="cpu", dtype="float32")
    found = {score.metric: score.values["model"] for score in scores}
    total = 0.0
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
        size = min(65, len(text.encode()) + 1)
        result = evaluate(folder, data=tmp_path / f"{number}.txt", block_size=size, dtype="float32")
        assert result.predicted == len(text.encode())
        total += result.loss * result.predicted
    words, size = sum(len(re.split(r"\s+", text)) for text in texts), sum(len(text.encode()) for text in texts)
    assert found["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-4)
    assert found["byte_perplexity"] == pytest.approx(math.exp(total / size), rel=1e-5)


def test_a_token_without_an_embedding_is_named(task: Callable[[str], Path], tmp_path: Path) -> None:
    folder = byte_model(tmp_path / "model", vocab_size=200)
    with pytest.raises(ExecutionError, match="is outside the model's vocabulary of 200"):
        evaluate_tasks({"model": folder}, [task(PERPLEXITY)], device="cpu", dtype="float32")


def test_one_number_through_every_door(
    trained_child: Path, task: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lm_eval --model anyblock` on the child is `lm_eval --model hf` on its export, and what the API says."""
    perplexity = task(PERPLEXITY)
    ours = evaluate_tasks({"child": trained_child}, [perplexity], device="cpu", dtype="float32", limit=2)
    expected = {score.metric: score.values["child"] for score in ours}
    assert {score.samples for score in ours} == {2}

    monkeypatch.chdir(perplexity.parent)  # where lm_eval itself looks for the data
    monkeypatch.setattr("sys.argv", [
        "lm_eval", "--model", "anyblock", "--model_args", f"pretrained={trained_child},dtype=float32", "--device", "cpu",
        "--tasks", str(perplexity), "--limit", "2", "--output_path", str(tmp_path / "out"),
    ])  # fmt: skip
    runpy.run_module("anyblock_lm_eval", run_name="__main__")
    (written,) = (tmp_path / "out").rglob("results_*.json")
    assert by_metric(json.loads(written.read_text())) == pytest.approx(expected, rel=1e-6)

    out = export_child(trained_child, tmp_path / "exported", "transformers")
    stock = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(out), "trust_remote_code": True, "dtype": "float32"},
        device="cpu",
        tasks=[str(perplexity)],
        limit=2,
        bootstrap_iters=0,
    )
    assert by_metric(stock) == pytest.approx(expected, rel=1e-6)


def test_on_the_command_line(
    trained_dir: Path, trained_child: Path, task: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--tasks", str(task(CHOICE)), "--tasks", str(task(PERPLEXITY))]
    arguments = [str(trained_child), "--teacher", str(trained_dir), "--device", "cpu", "--few-shot", "1"]
    assert main([*arguments, *files, "--limit", "4", "--batch-size", "2", "--json"]) == 0
    accuracy, *others = json.loads(capsys.readouterr().out)
    assert (accuracy["task"], accuracy["metric"], accuracy["samples"]) == ("own_choice", "acc", 4)
    assert accuracy["higher_is_better"] is True
    assert accuracy["values"].keys() == accuracy["errors"].keys() == {"teacher", "child"}
    assert all(value in (0.0, 0.25, 0.5, 0.75, 1.0) for value in accuracy["values"].values())
    assert {score["metric"] for score in others} == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
    assert all(score["values"]["child"] > score["values"]["teacher"] for score in others)
    assert main([*arguments, *files[:2], "--limit", "1"]) == 0
    assert "own_choice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (PERPLEXITY + "process_results: !function own.process\n", InputError, "--trust-remote-code"),
        (PERPLEXITY + "process_results: !%66unction own.process\n", InputError, "--trust-remote-code"),
        (PERPLEXITY + "include: with_code.yaml\n", InputError, "with_code.yaml names Python functions"),
        (PERPLEXITY.replace("{{text}}", "{{text.__class__.__mro__}}"), ExecutionError, "SecurityError"),
        ("task: [a", InputError, "cannot be read"),
        ("- a", InputError, "cannot be read"),
        ("dataset_path: json", InputError, "does not name its task"),
        (PERPLEXITY.replace("texts.jsonl", "absent.jsonl"), ExecutionError, "absent.jsonl"),
        (PERPLEXITY.replace("{{text}}", "{{absent}}"), ExecutionError, "lm-evaluation-harness failed on the model"),
    ],
    ids=[
        "code",
        "code in disguise",
        "included code",
        "code in a template",
        "no yaml",
        "no mapping",
        "no name",
        "no data",
        "no column",
    ],
)
def test_tasks_that_cannot_be_used(
    trained_child: Path, task: Callable[[str], Path], content: str, kind: type[Exception], says: str
) -> None:
    path = task(content)
    (path.parent / "own.py").write_text("raise SystemExit('the code was run')\n")
    (path.parent / "with_code.yaml").write_text("process_results: !function own.process\n")
    with pytest.raises(kind, match=says):
        evaluate_tasks({"model": trained_child}, [path], device="cpu")


def test_what_is_missing(trained_child: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_tasks({"model": trained_child}, [tmp_path / "absent.yaml"])
    with pytest.raises(UsageError, match="no model or no task"):
        evaluate_tasks({"model": trained_child}, [])
    with pytest.raises(InputError, match="does not exist"):
        evaluate_tasks({"model": tmp_path / "absent"}, ["wikitext"])
