"""Compress the tiny Llama of the tests on a text, and run one task of lm-evaluation-harness on teacher and child.

The first 70 % of the text is calibrated on, the rest is the task. The child is run three times: by `anyblock lm-eval`, by
`lm_eval --model anyblock` and, exported, by `lm_eval --model hf`; the numbers have to agree.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TEACHER = Path(__file__).parents[4] / "core" / "tests" / "assets" / "tiny-llama"
TASK = """
task: held_out_text
dataset_path: json
dataset_kwargs: {data_files: {test: documents.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""
SETTINGS = [
    "data.block_size=256",
    "data.calibration_tokens=16384",
    "data.scoring_tokens=8192",
    "data.evaluation_tokens=8192",
]
CHARACTERS = 4000
DOCUMENTS = 12


def main(text: Path) -> None:
    """Run it all in a temporary folder."""
    content = text.read_text(encoding="utf-8")
    border = len(content) * 7 // 10
    rest = content[border:]
    documents = [rest[start : start + CHARACTERS] for start in range(0, CHARACTERS * DOCUMENTS, CHARACTERS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "calibration.txt").write_text(content[:border], encoding="utf-8")
        (folder / "documents.jsonl").write_text(
            "".join(json.dumps({"text": d}) + "\n" for d in documents), encoding="utf-8"
        )
        (folder / "task.yaml").write_text(TASK)
        run(
            folder,
            "anyblock",
            "compress",
            TEACHER,
            "child",
            "--budget",
            "params=0.8x",
            "--data",
            "calibration.txt",
            *SETTINGS,
        )
        scores = run(
            folder,
            "anyblock",
            "lm-eval",
            "child",
            "--teacher",
            TEACHER,
            "--tasks",
            "task.yaml",
            "--dtype",
            "float32",
            "--json",
        )
        print(scores)
        values = {score["metric"]: score["values"] for score in json.loads(scores)}
        run(folder, "anyblock", "export", "child", "exported", "--format", "transformers")
        for model, options in (
            ("anyblock", "pretrained=child,dtype=float32"),
            ("hf", "pretrained=exported,dtype=float32,trust_remote_code=True"),
        ):
            harness(folder, model, options)
            (written,) = (folder / model).rglob("results_*.json")
            found = json.loads(written.read_text())["results"]["held_out_text"]
            for metric, expected in values.items():
                if not math.isclose(found[f"{metric},none"], expected["child"], rel_tol=1e-5):
                    sys.exit(
                        f"{metric} through lm_eval --model {model} is {found[f'{metric},none']}, not {expected['child']}"
                    )
            print(f"lm_eval --model {model} gives the same numbers for the child")


def harness(folder: Path, model: str, options: str) -> None:
    """Run lm_eval, which writes its results to a folder named as the model."""
    module = "anyblock_lm_eval" if model == "anyblock" else "lm_eval"
    arguments = [
        "--model",
        model,
        "--model_args",
        options,
        "--tasks",
        "task.yaml",
        "--device",
        "cpu",
        "--output_path",
        model,
    ]
    run(folder, "python", "-m", module, *arguments)


def run(folder: Path, *command: Any) -> str:
    """Run a command of this environment and return its output."""
    name, *arguments = map(str, command)
    words = [sys.executable, *arguments] if name == "python" else [sys.executable, "-m", name, *arguments]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
