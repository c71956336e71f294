"""The shipped index of adapters that exist, installed or not, for the message about an unsupported model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Final

from anyblock.errors import UnsupportedModelError

BROUGHT_BY: Final[Mapping[str, Mapping[str, str]]] = {
    "costs": {"latency": "anyblock-latency", "throughput": "anyblock-latency"},
    "adaptations": {"distill-blocks": "anyblock-distillation", "distill-model": "anyblock-distillation"},
    "sections of the configuration": {
        "distillation": "anyblock-distillation",
        "execution.ray": "anyblock-ray",
        "execution.slurm": "anyblock-slurm",
    },
    "executors": {"ray": "anyblock-ray", "slurm": "anyblock-slurm"},
    "formats": {
        **dict.fromkeys(("gguf", "llama.cpp"), "anyblock-gguf"),
        **dict.fromkeys(("anymodel", "nemotron-nas", "nemotron_h_puzzle", "vllm"), "anyblock-vllm"),
    },
    "types": dict.fromkeys(
        ("f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "q4_0", "q3_k", "q2_k", "mxfp4"), "anyblock-gguf"
    ),
}
"""`{kind: {name: the distribution that brings it}}` of well-known names that core does not have."""


def missing(kind: str, what: str, name: str) -> dict[str, str] | None:
    """Return the error's text and hint for a well-known name whose distribution is not installed; None for any other name.

    Args:
        kind: a name of `anyblock.contract.kinds.KINDS`.
        what: what one of them is called.
        name: what was asked for, and is not there.
    """
    distribution = BROUGHT_BY.get(kind, {}).get(name)
    if distribution is None:
        return None
    what = f"the {what} {name!r} comes with the distribution {distribution}, which is not installed"
    return {"what": what, "hint": f"python -m pip install {distribution}"}


@cache
def known_adapters() -> dict[str, str]:
    """Return `{model_type: distribution}` of every adapter known when this core was released."""
    data: dict[str, str] = json.loads(files(__package__).joinpath("known.json").read_text(encoding="utf-8"))
    return data


def unsupported(model_type: str, installed: Iterable[str]) -> UnsupportedModelError:
    """Return the error for a model type that no installed adapter serves.

    Its hint names the distribution that serves the model type; or else the nearest names, and two ways to an adapter.
    """
    here = sorted(installed)
    known = known_adapters()
    expected = f"one of the installed: {', '.join(here)}" if here else "an installed adapter; there is none"
    if model_type in known:
        what = f"no installed adapter serves model_type {model_type!r}"
        return UnsupportedModelError(what, expected=expected, hint=f"pip install {known[model_type]}")
    near = get_close_matches(model_type.lower(), sorted({*known, *here}), n=3, cutoff=0.6)
    advice = [f"the nearest are {', '.join(_named(name, here, known) for name in near)}"] if near else []
    dest = f"anyblock-{model_type.replace('_', '-')}"
    advice.append(
        f"write an adapter, say {dest}: `anyblock new-family {model_type} {dest}` does it where transformers has the model, and"
        " core/docs/write-an-adapter.md goes from an empty folder to a published one"
    )
    return UnsupportedModelError(
        f"no adapter serves model_type {model_type!r}", expected=expected, hint="; or ".join(advice)
    )


def _named(name: str, here: Iterable[str], known: Mapping[str, str]) -> str:
    return f"{name!r} (installed)" if name in here else f"{name!r} (pip install {known[name]})"
