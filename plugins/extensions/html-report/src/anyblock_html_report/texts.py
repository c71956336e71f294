"""Texts of teacher and child side by side, and how far apart they are at every token of a text.

`write_texts` runs both models on the run's evaluation text and keeps what it found as `texts.json` in the run folder:

    {"child": "fingerprint of the child",
     "texts": [{"prompt": "...", "teacher": ["token", ...], "child": ["token", ...]}, ...],
     "divergence": {"tokens": ["token", ...], "kl": [null, 0.1, ...]}}

`kl[i]` is KL(teacher || child) in nats of the prediction of token i; the first token is predicted by nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.contract.services import services
from anyblock.errors import InputError

from anyblock_html_report.run import Json, Run, of_another_version

if TYPE_CHECKING:
    import torch
    from anyblock.contract.services import LoadedModel

_PROMPT_TOKENS: Final = 24
_NEW_TOKENS: Final = 40
_MEASURED_TOKENS: Final = 160
_WORST: Final = 10


def write_texts(run: Run, count: int) -> None:
    """Continue `count` evaluation texts greedily with teacher and child, measure one of them token by token, and keep that.

    Raises:
        InputError: the run has no child or no text yet, or one of its models cannot be loaded.
    """
    ids = _evaluation_ids(run)
    if not run.finished:
        raise InputError(
            f"{run.path} has no child yet, so no texts of it", hint="run `anyblock compress` to its end first"
        )
    written: dict[str, tuple[list[list[int]], torch.Tensor]] = {}
    loaded: LoadedModel | None = None
    prompts, text = ids[:count, :_PROMPT_TOKENS], ids[:1, :_MEASURED_TOKENS]
    teacher, child = _folders(run)
    with services().progress().task("Writing texts", total=2, unit="models") as advance:
        for name, folder in (("teacher", teacher), ("child", child)):
            loaded = services().load_model(folder, tokenizer=str(teacher))
            written[name] = _written(loaded, prompts), _predictions(loaded, text)
            advance(1)
    assert loaded is not None
    tokenizer = loaded.tokenizer
    mine, theirs = written["child"][1], written["teacher"][1]
    share = theirs.exp()
    kl = (share * (theirs - mine)).where(share > 0, 0.0).sum(-1).clamp(min=0).tolist()  # a model may rule tokens out
    run.texts = {
        "child": run.child,
        "texts": [
            {
                "prompt": tokenizer.decode(prompt, skip_special_tokens=True),
                "teacher": _pieces(tokenizer, own),
                "child": _pieces(tokenizer, other),
            }
            for prompt, own, other in zip(prompts.tolist(), written["teacher"][0], written["child"][0], strict=True)
        ],
        "divergence": {
            "tokens": _pieces(tokenizer, text[0].tolist()),
            "kl": [None, *(float(f"{value:.4g}") for value in kl)],
        },
    }
    from anyblock_html_report.page import write_page

    write_page(json.dumps(run.texts, ensure_ascii=False, indent=1) + "\n", run.path / "texts.json")


def _folders(run: Run) -> tuple[Path, Path]:
    """Return where the teacher and the child are: the run's own copy of the teacher, and what the recipe calls `output`.

    Raises:
        InputError: the child is not there.
    """
    child = Path(str(run.settings.get("output", "")))
    sibling = run.path.with_name(run.name)
    if (sibling / "config.json").is_file() and not (child.is_absolute() and child.is_dir()):
        child = sibling  # of a relative path, or where run and child were moved together
    if not (child / "config.json").is_file():
        raise InputError(
            f"the child of {run.path} is not at {child}", hint=f"move it to {sibling}, or start the run again"
        )
    return run.path / "teacher", child


def _evaluation_ids(run: Run) -> torch.Tensor:
    from safetensors.torch import load_file

    path = next(run.path.glob("stages/*-data/tokens.safetensors"), None)
    if path is None:
        raise InputError(f"{run.path} has no text yet", hint="run `anyblock compress` to its end first")
    found = load_file(path)
    if "evaluation" not in found:
        raise of_another_version(run, f"{path.name} has no evaluation text, but {', '.join(sorted(found))}")
    return found["evaluation"]


def _written(loaded: LoadedModel, prompts: torch.Tensor) -> list[list[int]]:
    """Return what the model writes after each prompt, token by token, taking the likeliest each time."""
    import torch

    model: Any = loaded.model
    given = prompts.long().to(next(model.parameters()).device)
    with torch.no_grad():
        ids = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
    rows: list[list[int]] = ids[:, prompts.shape[1] :].tolist()
    return rows


def _predictions(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the log probabilities of every next token, [tokens - 1, vocabulary]."""
    import torch

    model: Any = loaded.model
    with torch.no_grad():
        logits = model(ids.long().to(next(model.parameters()).device)).logits
    return logits[0, :-1].float().log_softmax(-1).cpu()  # type: ignore[no-any-return]


def _pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the text that each token adds to those before it."""
    pieces, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False)
        pieces.append(text[len(before) :] if text.startswith(before) else tokenizer.decode(ids[end - 1 : end]))
        before = text
    return pieces


def shown_texts(run: Run) -> Json | None:
    """Return the texts with the number of tokens that are equal from the start, and the tokens that are farthest apart.

    Raises:
        InputError: `texts.json` has another form.
    """
    if run.texts is None:
        return None
    try:
        rows = [{**row, "same": _same(row["teacher"], row["child"])} for row in run.texts["texts"]]
        tokens, kl = run.texts["divergence"]["tokens"], run.texts["divergence"]["kl"]
        known = [(value, index) for index, value in enumerate(kl) if value is not None]
        most = max((value for value, _ in known), default=0.0) or 1.0
        spans = [
            (token, value, 0 if value is None else min(8, int(9 * (value / most) ** 0.5)))
            for token, value in zip(tokens, kl, strict=True)
        ]
        worst = [
            (index, "".join(tokens[max(0, index - 6) : index]), tokens[index], value)
            for value, index in sorted(known, key=lambda pair: -pair[0])[:_WORST]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise of_another_version(run, f"texts.json has another form ({type(error).__name__}: {error})") from error
    return {"rows": rows, "spans": spans, "worst": worst}


def _same(first: list[str], second: list[str]) -> int:
    for index, (own, other) in enumerate(zip(first, second, strict=False)):
        if own != other:
            return index
    return min(len(first), len(second))
