"""`anyblock push`: one commit with a card, or nothing; and `compress` from a hub id, held to one commit."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from anyblock.cli import app
from anyblock.contract.blocks import AttentionConfig, BlockConfig, FFNConfig, MambaConfig, MoEConfig
from anyblock.errors import ExecutionError, InputError, OutputExistsError, UsageError
from anyblock_hub.model_card import card_metadata
from anyblock_hub.picture import architecture_svg, in_words
from anyblock_hub.push import prepare_push, push_child
from huggingface_hub import ModelCard

CARD = b"---\nlicense: other\nlicense_name: tiny-1.0\nlicense_link: LICENSE\nlanguage: en\nmetrics: [x]\n---\nThe teacher.\n"
SMALL = ["data.block_size=16", "data.scoring_tokens=64", "data.calibration_tokens=256", "data.evaluation_tokens=64"]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def in_front(card: str | bytes) -> dict[str, Any]:
    text = card.decode() if isinstance(card, bytes) else card
    return yaml.safe_load(text.split("---")[1])


@pytest.fixture
def teacher(hub: Any, server: Any, llama_dir: Path) -> Any:
    """`owner/name` with a card and the text of its licence."""
    return hub.add("owner/name", server.tree_of(llama_dir) | {"README.md": CARD, "LICENSE": b"Do as you like.\n"})


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts" / "text.txt"
    path.parent.mkdir()
    path.write_text("\n".join(f"line {number} of some text to calibrate on" for number in range(60)))
    return path


@pytest.mark.slow
def test_from_a_hub_id_to_a_child_on_the_hub(
    connected: Any,
    server: Any,
    teacher: Any,
    text_file: Path,
    anyblock: Any,
    python: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = teacher.branches["main"]
    command = ["compress", "owner/name", tmp_path / "child", "--budget", "params=0.8x", "--data", text_file, *SMALL]
    done = anyblock(*command)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "child.run"
    recorded = yaml.safe_load((run / "run.yaml").read_text())
    assert (recorded["model"], recorded["revision"]) == ("owner/name", pinned)
    assert json.loads((run / "summary.json").read_text())["origin"] == f"owner/name@{pinned}"

    # The branch moves on; the run does not, unless it is told to.
    teacher.commit(teacher.files() | {"config.json": b"{}"}, "broken")
    stages = {file: file.stat().st_mtime_ns for file in run.glob("stages/*/stage.json")}
    again = anyblock(*command)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in run.glob("stages/*/stage.json")} == stages
    assert "model_type" in anyblock(*command, "revision=main").stderr

    with prepare_push(tmp_path / "child", "new/child") as push:
        shown = push.card
    assert "new/child" not in connected.repositories
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    address = push_child(tmp_path / "child", "new/child", private=True, message="A child")
    repository = connected.repositories["new/child"]
    assert repository.private
    assert repository.messages == ["first", "A child"]
    assert address == f"{connected.url}/new/child/commit/{repository.branches['main']}"
    files = repository.files()
    assert files.pop("README.md").decode() == shown
    del files[".gitattributes"]
    check_picture(files.pop("architecture.svg"), layers=3)
    assert files == {
        name: content for name, content in server.tree_of(tmp_path / "child").items() if name != "README.md"
    }
    check_card(shown, pinned, tmp_path)

    # Somebody else takes it from there, as the card says.
    (_, console), (_, shown_code), (_, how) = BLOCK.findall(shown)
    typed = shlex.split(console.splitlines()[1].removeprefix("$ "))
    assert how.startswith("$ anyblock compress")
    code = f"{shown_code}\nfrom anyblock.cli import main\nmain({typed[1:]})"
    used = python("-c", code, HF_TOKEN=server.READER)
    assert used.returncode == 0, used.stderr
    first, *_, second = (line for line in used.stdout.splitlines() if line.startswith("Once upon a time"))
    assert second.startswith(first)


def check_picture(svg: bytes, layers: int) -> None:
    """It is well-formed, loads nothing, and has every layer's number."""
    root = ElementTree.fromstring(svg)
    assert not [node for node in root.iter() if any(name.endswith("href") for name in node.attrib)]
    assert not [node for node in root.iter() if node.tag.rpartition("}")[2] in ("script", "image", "foreignObject")]
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word and word.isdigit()] == [str(i) for i in range(layers)]


def test_the_picture_says_what_is_left_of_every_half() -> None:
    moe = MoEConfig(num_local_experts=8, num_experts_per_tok=2, expert_intermediate_dim=64)
    mamba = MambaConfig(state_dim=16, num_heads=8, head_dim=8, num_groups=1)
    attention, dense = AttentionConfig(num_key_value_heads=8), FFNConfig(intermediate_size=100)
    no_mixer = AttentionConfig(no_op=True)
    teacher = [
        BlockConfig(attention=attention, ffn=dense),
        BlockConfig(attention=AttentionConfig(mamba=mamba), ffn=FFNConfig(moe=moe)),
        BlockConfig(attention=no_mixer, ffn=dense),
    ]
    child = [
        teacher[0].with_attention(num_key_value_heads=2).with_ffn(intermediate_size=60),
        BlockConfig(
            attention=AttentionConfig(replace_with_linear=True), ffn=FFNConfig(moe=replace(moe, num_local_experts=4))
        ),
        BlockConfig(attention=no_mixer, ffn=FFNConfig(no_op=True)),
    ]
    svg = architecture_svg(teacher, child, "a<b")
    check_picture(svg.encode(), layers=3)
    assert re.findall("<title>layer (.*?)</title>", svg) == [
        "0, mixer: attention, 25% kept",
        "0, feed-forward: FFN, 60% kept",
        "1, mixer: linear map",
        "1, feed-forward: experts, 50% kept",
        "2, feed-forward: removed",  # the teacher has no mixer there
    ]
    assert in_words(teacher, child).endswith(
        "5 halves of 3 layers differ from the teacher's (removed: 1, linear maps: 1, smaller: 3)."
    )
    large = architecture_svg(teacher * 60, child * 60, "large")
    assert len(large) < 120_000
    assert int(ElementTree.fromstring(large).attrib["width"]) < 1500


def test_metadata_that_the_hub_refuses_is_the_cards_fault(
    connected: Any, server: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    with pytest.raises(InputError, match=r"refuses the card of new/child.*license.*Do What I Say"):
        push_child(teacher_dir, "new/child", license_id="Do What I Say")
    assert connected.repositories["new/child"].files().keys() == {".gitattributes"}
    with pytest.raises(UsageError, match="cannot be the teacher's name"):
        push_child(teacher_dir, "new/child", base_model="../folder/teacher")


def check_card(card: str, pinned: str, tmp_path: Path) -> None:
    assert in_front(card) == {
        "license": "other",
        "license_name": "tiny-1.0",
        "license_link": "LICENSE",
        "language": "en",
        "base_model": "owner/name",
        "library_name": "anyblock",
        "pipeline_tag": "text-generation",
        "tags": ["anyblock", "pruned"],
        "metrics": ["perplexity"],
    }
    # As huggingface_hub reads it: what it does not know, or takes for malformed, it would drop or refuse.
    assert ModelCard(card).data.to_dict() == in_front(card)
    assert re.search(r"^!\[Teacher and child .* halves of 3 layers .*\]\(architecture\.svg\)$", card, re.MULTILINE)
    summary = json.loads((tmp_path / "child.run" / "summary.json").read_text())
    evaluation = summary["quality"]
    assert f"| perplexity | {evaluation['teacher']['perplexity']:.4g}"[:20] in card
    assert f"{evaluation['predicted']} predicted tokens, windows of 16 tokens without overlap" in card
    assert "| params | at most " in card
    assert len(re.findall(r"^\| [012] \| ", card, re.MULTILINE)) == 3
    assert "$ anyblock compress owner/name child --budget params=0.8x --data text.txt" in card
    assert "tiny-1.0, holds for them too" in card
    assert "Its text is in LICENSE." in card
    assert pinned in card
    assert str(tmp_path) not in card


def test_an_interrupted_push_shows_nothing_and_goes_on(
    connected: Any, server: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    connected.fail_uploads = 2
    with pytest.raises(ExecutionError, match="nothing of this upload is visible; run the same command again"):
        push_child(teacher_dir, "new/child")
    assert connected.repositories["new/child"].files().keys() == {".gitattributes"}
    arrived, connected.fail_uploads = list(connected.uploads), None
    push_child(teacher_dir, "new/child")
    assert len(connected.repositories["new/child"].messages) == 2
    assert len(set(connected.uploads)) == len(connected.uploads) > len(arrived) > 0


def test_a_branch_is_replaced_only_when_asked(
    connected: Any, server: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    repository = connected.add("new/child", {"README.md": b"mine", "old.safetensors": b"old"})
    before = dict(repository.branches)
    with pytest.raises(OutputExistsError, match="has 2 files already on the branch main"):
        push_child(teacher_dir, "new/child")
    with pytest.raises(UsageError, match="is public already"):
        push_child(teacher_dir, "new/child", private=True)
    assert repository.branches == before
    push_child(teacher_dir, "new/child", revision="small")
    assert repository.branches["main"] == before["main"]
    assert "old.safetensors" not in repository.files("small")
    push_child(teacher_dir, "new/child", overwrite=True)
    assert repository.files() == repository.files("small")


def test_a_branch_without_a_commit_of_its_own_counts_as_new(
    connected: Any, server: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    repository = connected.add("new/child", {"README.md": b"mine"})
    repository.branches["small"] = repository.branches["main"]  # as an interrupted push leaves it
    push_child(teacher_dir, "new/child", revision="small")
    assert repository.files() == {"README.md": b"mine"}
    assert len(repository.files("small")) > 1
    with pytest.raises(OutputExistsError, match="on the branch small"):
        push_child(teacher_dir, "new/child", revision="small")


def test_a_branch_that_somebody_else_changes_meanwhile(
    connected: Any, server: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    repository = connected.add("new/child", {})
    connected.on_upload = lambda: repository.commit({"theirs": b"theirs"}, "theirs")
    with pytest.raises(ExecutionError, match="was changed by somebody else meanwhile"):
        push_child(teacher_dir, "new/child")
    assert repository.files() == {"theirs": b"theirs"}


@pytest.mark.parametrize(
    ("name", "token", "says"),
    [
        ("new/child", "", "no token of the hub was found"),
        ("new/child", "hf_reader", "does not let this token write to new/child"),
        ("owner/secret", "hf_unknown", "does not let this token write to owner/secret"),
        ("child", "hf_writer", "has no owner"),
        ("new/ch ild", "hf_writer", "cannot be a repository's name"),
        ("new/child", "hf_writer", "while HF_HUB_OFFLINE is set"),
    ],
)
def test_a_push_that_may_not_be(
    connected: Any, teacher_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, token: str, says: str
) -> None:
    connected.add("owner/secret", {}, private=True)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", "OFFLINE" in says)
    with pytest.raises(InputError, match=says):
        push_child(teacher_dir, name)
    assert connected.repositories.keys() == {"owner/secret"}
    assert connected.uploads == []


def test_an_exported_form_is_pushed_for_transformers(
    connected: Any, server: Any, trained_child: Path, python: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    push_child(trained_child, "new/child", format_name="transformers", license_id="mit", base_model="some/teacher")
    files = connected.repositories["new/child"].files()
    assert "modeling_anyblock.py" in files
    data = in_front(files["README.md"])
    assert (data["license"], data["base_model"], data["library_name"]) == ("mit", "some/teacher", "transformers")
    assert "custom_code" in data["tags"]
    assert [path for path in trained_child.parent.iterdir() if ".prepared" in path.name] == []
    ((_, code),) = BLOCK.findall(files["README.md"].decode())
    assert "trust_remote_code=True" in code
    used = python("-c", code)
    assert used.returncode == 0, used.stderr
    assert used.stdout.startswith("Once upon a time")


def test_the_command_line(
    connected: Any,
    server: Any,
    trained_child: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def typed(*arguments: str | Path) -> int:
        return app([str(argument) for argument in arguments], standalone_mode=False) or 0

    assert typed("push", trained_child, "new/child", "--dry-run", "--license", "mit") == 0
    out, err = capsys.readouterr()
    assert in_front(out)["license"] == "mit"
    assert all(name in err for name in ("README.md", "architecture.svg", "subblocks_safetensors/lm_head.safetensors"))
    assert connected.repositories == {}
    monkeypatch.setenv("HF_TOKEN", server.TOKEN)
    assert typed("push", trained_child, "new/child", "--license", "mit", "--private", "-m", "A child") == 0
    assert capsys.readouterr().out.startswith(f"pushed {connected.url}/new/child/commit/")
    assert connected.repositories["new/child"].files()["README.md"].decode() == out.rstrip("\n") + "\n"


def test_a_child_without_a_run(trained_child: Path, tmp_path: Path) -> None:
    with prepare_push(trained_child, "new/child") as push:
        assert "How it was made" not in push.card
        assert "## Budget" not in push.card
        assert push.card.count("no-op") == 5
        assert "The teacher's card does not name it." in push.card
        assert "license" not in in_front(push.card)
    (tmp_path / "run.yaml").write_text("model: x\n")
    with pytest.raises(InputError, match="is not the run that made"), prepare_push(trained_child, "a/b", run=tmp_path):
        pass


def test_a_card_with_damaged_metadata(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\nText\n")
    with pytest.raises(InputError, match="--license"):
        card_metadata(tmp_path / "README.md")
    (tmp_path / "README.md").write_text("no metadata\n")
    assert card_metadata(tmp_path / "README.md") == {}
    assert card_metadata(tmp_path / "absent.md") == {}
