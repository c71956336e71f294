"""The command line: what it prints, its exit codes, and that unusable input leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from anyblock.cli import main
from anyblock_tests.byte_tokenizer import byte_model, byte_tokenizer

COMMANDS = (
    "families",
    "inspect",
    "convert",
    "compress",
    "search",
    "evaluate",
    "bench",
    "generate",
    "init",
    "schema",
    "watch",
    "conformance",
    "doctor",
    "export",
    "new-family",
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    return path


def run(*arguments: str | Path) -> int:
    """Run the command line in this process; its signal handlers are put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    shown, unraisable = warnings.showwarning, sys.unraisablehook
    try:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
    finally:
        warnings.showwarning, sys.unraisablehook = shown, unraisable
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(stop.value.code or 0)


SMALL = [
    "data.block_size=16",
    "data.scoring_tokens=64",
    "data.calibration_tokens=256",
    "data.evaluation_tokens=64",
    "data.batch_size=4",
]


def test_a_tilde_is_the_home_folder_everywhere(
    llama_dir: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell leaves it alone in `--data=~/text` and `run_dir=~/run`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    budget = ("--budget", "params=0.8x", "evaluation.enabled=false")
    assert run("convert", llama_dir, "~/teacher") == 0
    assert run("compress", "~/teacher", "~/child", *budget, "--data", "~/text.txt", "run_dir=~/run", *SMALL) == 0
    assert run("compress", "~/teacher", "~/other", *budget, "--data", "~/text.txt", "--run", "~/run2", *SMALL) == 0
    assert run("search", "~/run", "--budget", "params=0.9x") == 0
    assert run("export", "~/child", "~/exported", "--format", "transformers") == 0
    assert run("evaluate", "~/child", "--teacher", "~/teacher", "--data", "~/text.txt", "--block-size", 16) == 0
    expected = {"teacher", "child", "other", "run", "run2", "exported", "text.txt"}
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == expected


def test_a_user_goes_from_model_to_child(
    llama_dir: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child, converted = tmp_path / "child", tmp_path / "converted"
    assert run("convert", llama_dir, converted) == 0
    assert run("compress", converted, child, "--budget", "params=0.8x", "--data", text, *SMALL) == 0
    shown = capsys.readouterr().out
    assert "no-op" in shown or "of 48" in shown
    assert (tmp_path / "child.run" / "report.md").is_file()
    assert run("inspect", child, "--json") == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    assert run("inspect", llama_dir, "--json") == 0
    assert costs["params"] <= 0.8 * json.loads(capsys.readouterr().out)["costs"]["params"]
    assert (
        run("evaluate", child, "--teacher", llama_dir, "--data", text, "--block-size", 16, "--max-tokens", 64, "--json")
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["kl_per_token"] > 0
    assert result["child"]["parameters"] == costs["params"]
    assert run("generate", child, "some text", "--max-new-tokens", 5) == 0
    assert capsys.readouterr().out.startswith("some text")
    assert run("search", tmp_path / "child.run", "--budget", "params=0.7x", "--json") == 0
    (solution,) = json.loads(capsys.readouterr().out)
    assert solution["status"] == "proven"


def test_a_yaml_file_and_overrides(llama_dir: Path, text: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {llama_dir}\noutput: {tmp_path / 'child'}\ndata: {{path: {text}, block_size: 16, scoring_tokens: 64,"
        " calibration_tokens: 256, evaluation_tokens: 64}\nsearch: {budget: {params: 0.9x}}\n"
    )
    assert (
        run("compress", config, "--budget", "params=0.7x", "pruning.ffn.sizes=[0.5]", "evaluation.enabled=false") == 0
    )
    summary = json.loads((tmp_path / "child.run" / "summary.json").read_text())
    assert summary["costs"]["params"] <= 0.7 * summary["teacher_costs"]["params"]
    assert {block["ffn"]["intermediate_size"] for block in summary["block_configs"]} <= {48, 24, None}


def damaged(llama_dir: Path, tmp_path: Path, fault: str) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(llama_dir, folder)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    if fault == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    elif fault == "lying":
        weights.write_bytes(data[:8].replace(data[:8], (2**62).to_bytes(8, "little")) + data[8:])
    elif fault == "outside":
        weights.unlink()
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../etc/passwd.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif fault == "unreadable":
        weights.unlink()
        weights.mkdir()
    else:
        config = json.loads((folder / "config.json").read_text())
        config.pop("model_type") if fault == "no model_type" else config.update(model_type="lama")
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("truncated", "model.safetensors"),
        ("lying", "model.safetensors"),
        ("outside", "index"),
        ("unreadable", "model.safetensors"),
        ("no model_type", "model_type"),
        ("unknown model_type", "llama"),
    ],
)
def test_damaged_models_are_refused(
    llama_dir: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, says: str
) -> None:
    model = damaged(llama_dir, tmp_path, fault)
    before = sorted(path.name for path in tmp_path.iterdir())
    for command in (
        ["convert", model, tmp_path / "out"],
        ["inspect", model],
        ["compress", model, tmp_path / "out", "--budget", "params=0.8x", "--data", text, *SMALL],
    ):
        assert run(*command) == 2
        message = capsys.readouterr().err
        assert says in message
        assert "Traceback" not in message
        assert "internal error" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "params=0.8x"], "no calibration text"),
        (["--budget", "params=0.8x", "--data", "nowhere.txt"], "nowhere.txt"),
        (["--budget", "params=0.01x", "--data", "TEXT", *SMALL], "smallest"),
        (["--budget", "parms=0.8x", "--data", "TEXT"], "params"),
        (["--budget", "params=lots", "--data", "TEXT"], "lots"),
        (["--data", "TEXT", *SMALL], "no budget"),
        (["--budget", "params=0.8x", "--data", "TEXT", "data.block_size=100000"], "too short|too few|at least 100000"),
        (["--budget", "params=0.8x", "--data", "TEXT", "data.blok_size=16"], "block_size"),
        (["--budget", "params=0.8x", "--data", "TEXT", "--bugdet", "1"], "bugdet|budget"),
        (["--budget", "params=0.8x", "--data", "TEXT", "--hook", "NoHook", *SMALL], "NoHook"),
        (["--budget", "params=0.8x", "--data", "TEXT", "--device", "cuda:5", *SMALL], "cuda:5"),
        (["--budget", "params=0.8x", "--data", "TEXT", "pruning.ffn.sizes=[64]", *SMALL], "nearest"),
    ],
)
def test_wrong_usage_is_one_message_and_nothing_is_written(
    llama_dir: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    import re

    given = [str(text) if argument == "TEXT" else argument for argument in arguments]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("compress", llama_dir, tmp_path / "out", *given) == 2
    message = capsys.readouterr().err
    assert re.search(says, message)
    assert "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_existing_output_is_refused_and_kept(llama_dir: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    assert run("convert", llama_dir, out) == 2
    assert run("compress", llama_dir, out, "--budget", "params=0.8x", "--data", text, *SMALL) == 2
    assert [path.name for path in out.iterdir()] == ["precious"]
    assert run("convert", llama_dir, out, "--overwrite") == 0
    assert (out / "config.json").is_file()


def test_every_command_has_help_without_torch() -> None:
    script = (
        "import sys\nfrom anyblock.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'transformers', 'anyblock_llama'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    for command in ("", *COMMANDS):
        if command == "conformance":
            continue
        arguments = [command, "--help"] if command else ["--help"]
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("error", ["ValueError('no length')", "anyblock.errors.InputError('what', 'why', 'do')"])
def test_a_signal_is_known_when_a_library_raises_its_own_error_instead(
    number: signal.Signals, code: int, error: str
) -> None:
    # torch.asarray asks an object for its length and hides whatever is raised there behind a ValueError.
    script = f"""
import os, time, anyblock.cli, anyblock.errors
def app(args):
    try:
        os.kill(os.getpid(), {int(number)})
        time.sleep(60)
    except BaseException:
        raise {error} from None
anyblock.cli.app = app
anyblock.cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("anyblock: stopped; ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_amid_a_finalizer_stops_the_command(number: signal.Signals, code: int) -> None:
    # Python prints what a finalizer raises and goes on; twice in a row here.
    script = f"""
import os, time, weakref, anyblock.cli
class Kept:
    pass
def released():
    os.kill(os.getpid(), {int(number)})
    time.sleep(60)
def app(args):
    for _ in range(2):
        kept = Kept()
        weakref.finalize(kept, released)
        del kept
    time.sleep(60)
anyblock.cli.app = app
anyblock.cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("anyblock: stopped; ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_what_is_finished(
    llama_dir: Path, text: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "anyblock", "compress", str(llama_dir), str(out), "--budget", "params=0.8x"]
    command += ["--data", str(text), *SMALL]
    # A process in the background of a shell ignores SIGINT; the handler of the command line must be there all the same.
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        for _ in range(9000):
            if (tmp_path / "out.run" / "stages").is_dir() or process.poll() is not None:
                break
            time.sleep(0.02)
        process.send_signal(number)
        _, message = process.communicate(timeout=120)
    assert process.returncode == code, message
    assert "the same command continues" in message
    assert "Traceback" not in message
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert run(*command[3:]) == 0
    assert (out / "config.json").is_file()


def test_prompts_that_a_model_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = byte_model(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["First"])
    tokenizer.save_pretrained(model)
    assert run("generate", model, "Citizen", "--max-new-tokens", 1) == 0
    capsys.readouterr()
    for prompt, says in (
        ("First Citizen", "token id 258 ('First') is outside"),
        ("a\udcff", "half of a surrogate pair, \\udcff"),
    ):
        assert run("generate", model, prompt, "--max-new-tokens", 1) == 2
        assert says in capsys.readouterr().err
