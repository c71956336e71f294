"""What a run folder holds, as plain data. Nothing of a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]
from anyblock.contract.blocks import BlockConfig, block_configs_from_json, group_name
from anyblock.errors import InputError

Json = dict[str, Any]

_PARTS: Final = {
    "candidates": ("candidates", "candidates.json", "the candidates and what they cost"),
    "scores": ("scores", "scores.json", "the damage that each candidate does"),
    "agreement": ("scores", "agreement.json", ""),
    "solutions": ("search", "solutions.json", "the child that the search chose"),
    "refinement": ("refine", "refinement.json", ""),
    "evaluation": ("evaluation", "evaluation.json", "the comparison of child and teacher"),
}
"""`{name: (stage, file, what is missing without it)}`; a run may do without those for which nothing is said."""
_SUMMARY: Final = "summary.json"


@dataclass
class Run:
    """A run of `anyblock compress`, finished or not.

    Attributes:
        path: its folder.
        recipe: `run.yaml`, as it stands there.
        settings: what it says.
        summary: `summary.json`; empty while the run is not finished.
        candidates, scores, solutions, refinement, evaluation, agreement: what the stages wrote; None where they have not.
        adaptations: `{stage: adapted.json}`.
        stages: `{stage: stage.json}` of the finished ones, in their order.
        sweeps: the rows of every `sweep.json` that `anyblock search --sweep` wrote into the run.
        texts: `texts.json`, see `anyblock_html_report.texts`; None where none were asked for.
        missing: what cannot be shown, a sentence each.
        child: the child's fingerprint; "" before there is one.
        busy: whether a process says that it works on the run.
    """

    path: Path
    recipe: str
    settings: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    candidates: Json | None = None
    scores: dict[str, float] | None = None
    solutions: list[Json] | None = None
    refinement: Json | None = None
    evaluation: Json | None = None
    agreement: Json | None = None
    adaptations: dict[str, Json] = field(default_factory=dict)
    stages: dict[str, Json] = field(default_factory=dict)
    sweeps: list[Json] = field(default_factory=list)
    texts: Json | None = None
    missing: list[str] = field(default_factory=list)
    child: str = ""
    busy: bool = False

    @property
    def name(self) -> str:
        """The folder's name without the `.run` that `compress` puts after it."""
        return self.path.resolve().name.removesuffix(".run")

    @property
    def finished(self) -> bool:
        """Whether it reached its end."""
        return bool(self.summary)

    @property
    def version(self) -> str:
        """The version of AnyBlock that made it; "" where it does not say."""
        return str((self.summary.get("versions") or {}).get("anyblock", ""))

    @property
    def adapted(self) -> dict[str, Json]:
        """The adaptations in the order in which they ran."""
        order = [str(stage["name"]) for stage in self.summary.get("stages", [])] or list(self.stages)
        return {name: self.adaptations[name] for name in order if name in self.adaptations}

    @property
    def metric(self) -> str:
        """The name of the metric that candidates were scored by."""
        return str((self.settings.get("scoring") or {}).get("metric", "kl"))

    @property
    def scored_by_kl(self) -> bool:
        """Whether scores are KL in nats per token, as the measurements are."""
        return self.metric == "kl"

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen, `{group: label}`; empty before the search."""
        if self.refinement is not None:
            return dict(self.refinement["choices"])
        return dict(self.solutions[0]["choices"]) if self.solutions else {}

    @property
    def teacher_blocks(self) -> list[BlockConfig]:
        """The teacher's layers; empty before the candidates are listed."""
        found = self.summary.get("teacher_block_configs") or (self.candidates or {}).get("blocks") or []
        return block_configs_from_json(found)

    @property
    def child_blocks(self) -> list[BlockConfig]:
        """The child's layers; those of the teacher for halves of which nothing is chosen yet."""
        if self.summary:
            return block_configs_from_json(self.summary["block_configs"])
        blocks, choices = self.teacher_blocks, self.choices
        for row in (self.candidates or {}).get("candidates", []):
            candidate = row["candidate"]
            layer, half = candidate["layer"], candidate["half"]
            if choices.get(f"block_{layer}_{half}") == label_of(candidate):
                blocks[layer] = blocks[layer].exchanged(
                    half, BlockConfig.from_dict(candidate["block_config"]).half(half)
                )
        return blocks


def label_of(candidate: Mapping[str, Any]) -> str:
    """Return a candidate's name within its half, the same in every layer: `teacher`, `no_op`, `ffn_intermediate=88@q4_k`."""
    kind = str(candidate["kind"])
    shape = f"{kind}={candidate['size']}" if candidate["size"] and kind != "teacher" else kind
    return f"{shape}@{candidate['storage']}" if candidate.get("storage") else shape


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: there is no run, or one of its files cannot be read.
    """
    recipe = path / "run.yaml"
    if not recipe.is_file():
        raise InputError(
            f"{path} is not a run folder" if path.is_dir() else f"there is no folder {path}",
            expected="a folder with run.yaml, as `anyblock compress` leaves it next to the child (OUTPUT.run)",
        )
    run = Run(path, _text(recipe))
    run.settings = _settings(recipe, run.recipe)
    run.busy = (path / ".holder.json").is_file()
    folders = _stage_folders(path)
    if (path / _SUMMARY).is_file() and "child" in folders:
        run.summary = _json(path / _SUMMARY, dict)
    else:
        run.missing.append("The run is not finished, so its verdict, costs and stage notes are missing.")
    for name, (stage, file, lack) in _PARTS.items():
        found = folders.get(stage, path / "stages" / stage) / file
        if found.is_file():
            setattr(run, name, _json(found, list if name == "solutions" else dict))
        elif lack and not (name == "evaluation" and run.finished):
            run.missing.append(f"The stage {stage} has not finished: {lack} cannot be shown.")
    for stage, folder in folders.items():
        run.stages[stage] = _json(folder / "stage.json", dict)
        if (folder / "adapted.json").is_file():
            run.adaptations[stage] = _json(folder / "adapted.json", dict)
    for sweep in sorted(path.glob("sweep*/sweep.json")):
        run.sweeps += _json(sweep, list)
    if (path / "texts.json").is_file():
        run.texts = _json(path / "texts.json", dict)
    if "child" in folders and (folders["child"] / "child.json").is_file():
        run.child = str(_json(folders["child"] / "child.json", dict).get("fingerprint", ""))
    return run


def of_another_version(run: Run, what: str) -> InputError:
    """Return the error for a run whose files do not have the form that is read here."""
    return InputError(
        f"{run.path}: {what}" + (f"; the run was made by AnyBlock {run.version}" if run.version else ""),
        expected="a run of the installed version",
        hint="start `anyblock compress` again with the run's run.yaml: what can be kept of it is kept",
    )


def keys_of(run: Run) -> set[str]:
    """Return the names of all candidates, `group:label`, and of types of embeddings and head."""
    rows = [row["candidate"] for row in (run.candidates or {}).get("candidates", [])]
    outside = (run.candidates or {}).get("outside", {})
    found = {f"{group_name(candidate['layer'], candidate['half'])}:{label_of(candidate)}" for candidate in rows}
    return found | {f"{group}:{name}" for group, names in outside.items() for name in names}


def forget_stale(run: Run) -> None:
    """Drop what belongs to other candidates than those that are listed, or to another child: the run was started again."""
    if run.texts is not None and run.texts.get("child", "") != run.child:
        run.texts = None
        run.missing.append("The texts are those of an earlier child: --texts writes new ones.")
    keys = keys_of(run)
    if run.scores is not None and any(
        k not in run.scores for k in keys if k.startswith("block_") and not k.endswith(":teacher")
    ):
        run.scores = run.agreement = None
        run.missing.append(
            "The scores are those of other candidates: the run was started again and has not scored them."
        )
    if keys and any(f"{group}:{label}" not in keys for group, label in run.choices.items()):
        run.solutions = run.refinement = None
        run.missing.append(
            "What was chosen is not among the candidates: the run was started again and has not searched."
        )


def _stage_folders(path: Path) -> dict[str, Path]:
    """Return the folder of every finished stage by its name, in the order of the stages."""
    return dict(_finished(path / "stages"))


def _finished(stages: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted(stages.glob("[0-9][0-9]-*")):
        if (folder / "stage.json").is_file():
            yield folder.name.partition("-")[2], folder


def _settings(path: Path, text: str) -> Json:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}", expected="a file that `anyblock compress` wrote") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a run's configuration", expected="a mapping, as `anyblock compress` writes it")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", expected="a file that `anyblock compress` wrote") from error


def _json(path: Path, form: type[Any]) -> Any:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON: {error}", expected="a file that `anyblock compress` wrote", hint="run it again"
        ) from error
    if not isinstance(found, form):
        raise InputError(f"{path} holds a {type(found).__name__}", expected=f"a {form.__name__}")
    return found
