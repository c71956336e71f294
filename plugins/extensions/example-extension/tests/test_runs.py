"""The hook by its name in a run's YAML file and on the command line, on a really trained model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[4]
MODEL = ROOT / "core" / "tests" / "assets" / "tiny-llama"
TEXT = ROOT / "demo" / "text" / "calibration.txt"
HOOK = "WandaChannelContributionHook"
SETTINGS = ["data.block_size=64", "data.calibration_tokens=1024", "data.scoring_tokens=256", "evaluation.enabled=false"]
SETTINGS += ["search.refine_rounds=0", "pruning.ffn.sizes=[0.5]"]


def anyblock(*arguments: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anyblock", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run asked for three ways, and one with the hook that is the default."""
    pytest.importorskip("anyblock_llama")
    folder = tmp_path_factory.mktemp("runs")
    data = ["--budget", "params=0.9x", "--data", str(TEXT)]
    (folder / "run.yaml").write_text(
        f"model: {MODEL}\noutput: yaml\ndata: {{path: {TEXT}}}\nsearch:\n  budget: {{params: 0.9x}}\n"
        f"pruning:\n  ffn:\n    hook: {HOOK}\n",
        encoding="utf-8",
    )
    anyblock("compress", "run.yaml", *SETTINGS, folder=folder)
    anyblock("compress", str(MODEL), "option", *data, "--hook", HOOK, *SETTINGS, folder=folder)
    anyblock("compress", str(MODEL), "override", *data, *SETTINGS, f"pruning.ffn.hook={HOOK}", folder=folder)
    anyblock("compress", str(MODEL), "default", *data, *SETTINGS, folder=folder)
    return {name: folder / name for name in ("yaml", "option", "override", "default")}


def weights(child: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor; the files' headers do not count."""
    found: dict[str, bytes] = {}
    for file in sorted((child / "subblocks_safetensors").glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                found[f"{file.name}:{name}"] = tensors.get_tensor(name).view(torch.uint8).numpy().tobytes()
    return found


def test_the_name_means_the_same_hook_in_yaml_as_an_option_and_as_an_override(children):
    expected = weights(children["yaml"])
    assert weights(children["option"]) == expected
    assert weights(children["override"]) == expected


def test_the_hook_decides_which_channels_stay(children):
    assert weights(children["default"]) != weights(children["yaml"])
    kept = {name: json.loads((path / "anyblock.json").read_text())["kept_units"] for name, path in children.items()}
    assert kept["yaml"] == kept["option"]
    assert kept["yaml"] != kept["default"]
