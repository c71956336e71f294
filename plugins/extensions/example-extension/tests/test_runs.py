"""The hook by its name in a run's YAML file and on the command line, on a really trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from anyblock.cli import app
from safetensors import safe_open
from typer.testing import CliRunner

ROOT = Path(__file__).parents[4]
MODEL = ROOT / "core" / "tests" / "assets" / "tiny-llama"
TEXT = ROOT / "demo" / "text" / "calibration.txt"
HOOK = "WandaChannelContributionHook"
SETTINGS = ["data.block_size=64", "data.calibration_tokens=1024", "data.scoring_tokens=256", "evaluation.enabled=false"]
SETTINGS += ["search.refine_rounds=0", "pruning.ffn.sizes=[0.5]"]


def anyblock(*arguments: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"


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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        anyblock("compress", "run.yaml", *SETTINGS)
        anyblock("compress", str(MODEL), "option", *data, "--hook", HOOK, *SETTINGS)
        anyblock("compress", str(MODEL), "override", *data, *SETTINGS, f"pruning.ffn.hook={HOOK}")
        anyblock("compress", str(MODEL), "default", *data, *SETTINGS)
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
