"""The YAML of a run from a few answers: which budget fits, and why, in comments that stand in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyblock.errors import UsageError

_UNITS: Final = {
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("", "k", "M", "G", "T"))},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
FREE_SHARE: Final = 0.1
"""Share of the stated memory that is left for activations and the runtime."""
_NOT_TEXT: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"}
"""Words that YAML does not read as text."""
DEFAULT_BUDGET: Final = "params=0.8x"
"""The budget of a model that fits the memory as it is."""


@dataclass(frozen=True)
class Purpose:
    """What a child is for, as it decides about memory.

    Attributes:
        summary: in words.
        batch: sequences served at once.
        length: tokens of each, prompt and answer together.
    """

    summary: str
    batch: int
    length: int


PURPOSES: Final = {
    "chat": Purpose("one conversation at a time", 1, 4096),
    "documents": Purpose("one long text at a time", 1, 32_768),
    "server": Purpose("sixteen conversations at once", 16, 4096),
}


@dataclass(frozen=True)
class Answers:
    """What was asked for.

    Attributes:
        model: a folder or a hub id.
        purpose: a name of `PURPOSES`.
        device: as `anyblock compress` takes it; where the run computes.
        memory: bytes of the device that will serve the child; None when a budget was given instead.
        budget: `COST=VALUE` entries; empty when it follows from the memory.
        data: calibration text.
        output: the child's folder.
        batch: sequences served at once.
        length: tokens of each.
    """

    model: str
    purpose: str
    device: str
    memory: int | None
    budget: tuple[str, ...]
    data: str
    output: str
    batch: int
    length: int


def read_memory(text: str) -> int:
    """Return an amount of memory in bytes: `8GiB`, `24 GB`, `800MB`.

    Raises:
        UsageError: it has another form.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?i?B)\s*", text)
    if match is None or match.group(2) not in _UNITS or not float(match.group(1)):
        raise UsageError(f"{text!r} is not an amount of memory", expected="for instance 8GiB or 24GB")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def context_of(folder: Path) -> int | None:
    """Return how many tokens a model was made for, as its `config.json` says; None where it does not."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = [part.get("max_position_embeddings") for part in (config, config.get("text_config") or {})]
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def fitting_budget(costs: dict[str, float], memory: int) -> tuple[dict[str, str], list[str]]:
    """Return the budget under which weights and cache fit a memory, and sentences that explain it.

    Args:
        costs: the teacher's, as `anyblock inspect --json` gives them for the purpose's batch and length.
        memory: bytes of the device.
    """
    room = int(memory * (1 - FREE_SHARE))
    needs, cache = int(costs["memory"]), int(costs["kv_memory"])
    why = [
        f"The teacher takes {size(needs)}: weights {size(needs - cache)}, cache {size(cache)}.",
        f"Of {size(memory)}, {FREE_SHARE:.0%} is left for activations and the runtime: {size(room)} remain.",
    ]
    if needs <= room:
        cost, _, value = DEFAULT_BUDGET.partition("=")
        return {cost: value}, [
            *why,
            f"The teacher fits as it is, so the budget is a matter of taste: {DEFAULT_BUDGET}.",
        ]
    why.append(f"The child may take {room / needs:.0%} of what the teacher takes.")
    if 2 * room < needs:
        why.append("That is less than half: compare such a child with a quantized teacher and with a smaller model.")
    return {"memory": f"{room // 1024}KiB"}, why


def recipe(answers: Answers, inspected: dict[str, Any], schema: str) -> str:
    """Return the commented YAML.

    Args:
        answers: what was asked for.
        inspected: the model, as `anyblock inspect --json` describes it for the same batch and length.
        schema: the place of the JSON Schema, as an editor finds it from the file.
    """
    if answers.budget:
        budget: Any = list(answers.budget)
        why = ["As it was given."]
    else:
        assert answers.memory is not None
        budget, why = fitting_budget(inspected["costs"], answers.memory)
    purpose = PURPOSES[answers.purpose].summary
    return "\n".join(
        [
            f"# yaml-language-server: $schema={schema}",
            "# Written by `anyblock init`; `anyblock compress THIS_FILE` makes the child.",
            "# Every key with its default and meaning: core/docs/configuration.md.",
            "",
            f"# A {inspected['model_type']} model of {inspected['layers']} layers; {inspected['adapter']} serves it.",
            f"model: {_value(answers.model)}",
            "# The child's folder. The run's stages and its report go to the same name with .run after it.",
            f"output: {_value(answers.output)}",
            "# Where the run computes; the result is for any device.",
            f"device: {_value(answers.device)}",
            "",
            "data:",
            "  # Text like what the child will read: some 30,000 tokens are enough, in as many topics as it has to know.",
            f"  path: {_value(answers.data)}",
            "",
            "search:",
            f"  # Made for {purpose}: {answers.batch} x {answers.length} tokens.",
            f"  batch: {answers.batch}",
            f"  length: {answers.length}",
            "  cache_dtype: bfloat16",
            *(f"  # {sentence}" for sentence in why),
            f"  budget: {_value(budget)}",
            "",
        ]
    )


def size(value: float) -> str:
    """Return bytes in binary units: `15.0 GiB`."""
    for power, suffix in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{value / 1024**power:.1f} {suffix}"
    return f"{value:.0f} B"


def _value(value: str | Sequence[str] | dict[str, str]) -> str:
    """Return a value as YAML reads it back: plain where that is safe, quoted as JSON where it is not."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z/.][\w./@-]*", value) and value.lower() not in _NOT_TEXT
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {part}" for key, part in value.items()) + "}"
    return json.dumps(list(value), ensure_ascii=False)
