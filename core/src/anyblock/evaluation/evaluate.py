"""`evaluate`: how good a model is on a text, and how near to its teacher."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import NOTHING, Around, tokenize
from anyblock.calibration.text import read_text
from anyblock.calibration.tokenizer import load_tokenizer, written
from anyblock.checkpoint.hub import resolve_model
from anyblock.contract.trust import runs_code
from anyblock.errors import UsageError
from anyblock.evaluation.metrics import TokenMetrics
from anyblock.evaluation.result import EvaluationResult
from anyblock.evaluation.windows import windows
from anyblock.modeling.runner import Runner, check_vocabularies
from anyblock.progress import SILENT, Progress

DEFAULT_BLOCK_SIZE = 1024
_LOGITS_AT_A_TIME = 1 << 26

Model = str | Path | nn.Module
Data = str | Path | torch.Tensor | Batches


@runs_code
def evaluate(
    model: Model,
    *,
    data: Data,
    teacher: Model | None = None,
    tokenizer: Any | None = None,
    field: str | None = None,
    block_size: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Measure a model on a text: perplexity, and with a teacher also KL(teacher || child) and top-k agreement.

    Perplexity is `exp` of the mean negative log-likelihood of the next token. By default it is taken over windows of
    `block_size` tokens that do not overlap; with `stride`, over overlapping ones (`anyblock.evaluation.windows`). Where
    the tokenizer puts something in front of a text (BOS), every window begins with it, and it is never counted.
    Figures of different block sizes or strides cannot be compared.

    Args:
        model: a Hugging Face directory, a subblock checkpoint, a child, as text also a hub id, or a loaded model, which
            is run where it is.
        data: a file or folder of text (see `read_text`), token ids `[tokens]` that are cut into windows with nothing
            put in front of them, or sequences `[sequences, block_size]` that are used as they are.
        teacher: what to compare with.
        tokenizer: a tokenizer or a directory with one; None takes the one in the model's directory.
        field: of JSON and tables, the field with the text or the conversation; see `read_text`.
        block_size: tokens of one window; None is 1024, or the models' context or the whole text if that is shorter.
        stride: tokens from one window to the next; None for windows that do not overlap.
        max_tokens: use at most so many tokens of the text.
        batch_size: windows of one forward pass; None takes as many as have logits of 256 MiB in float32, at least one.
        device: where models that are given as paths run.
        dtype: their dtype; None keeps the checkpoint's.
        trust_remote_code: run the code that comes with their checkpoints.
        progress: where to report.

    Raises:
        InputError: the text, the tokenizer or a model cannot be used, or the vocabularies differ.
        ExecutionError: a logit is not finite (the message says where), or the device has not enough memory.
    """
    model, teacher = _found(model), None if teacher is None else _found(teacher)
    source = _tokenizer(tokenizer, model) if isinstance(data, str | Path) else None
    around = Around.of(source) if source is not None else data.around if isinstance(data, Batches) else None
    tokens = _tokens(data, source, max_tokens, field, progress)
    if tokens.dim() == 2 and (stride is not None or block_size is not None):
        raise UsageError(
            "block_size and stride are given with sequences of tokens", expected="a text or flat token ids"
        )
    child = Runner(_loaded(model, device, dtype), "child" if teacher is not None else "model")
    reference = None if teacher is None else Runner(_loaded(teacher, device, dtype), "teacher")
    check_vocabularies(child, reference)
    if tokens.dim() == 2:
        ids, labels = tokens, Batches(tokens, around=around).labels
    else:
        front = around or NOTHING
        length = block_size or _block_size(child, reference, len(front.before) + len(tokens))
        ids, labels = windows(tokens, length, stride, front)
    context = min((runner.context for runner in (child, reference) if runner and runner.context), default=None)
    if context is not None and ids.shape[1] > context:
        progress.note(f"blocks of {ids.shape[1]} tokens exceed the context of {context} that the model was made for")
    batches = Batches(ids, batch_size or child.sequences_for(ids.shape[1], _LOGITS_AT_A_TIME), around)
    for runner in filter(None, (child, reference)):
        runner.check_ids(ids, source)
    metrics = _measure(child, reference, batches, labels, progress)
    return EvaluationResult.measured(metrics.result(), batches, child, reference, stride=stride)


def _measure(
    child: Runner, teacher: Runner | None, batches: Batches, labels: torch.Tensor, progress: Progress
) -> TokenMetrics:
    metrics = TokenMetrics()
    with child.in_eval_mode(), progress.task("evaluate", total=batches.tokens, unit="tokens") as advance:
        for index, ids in enumerate(batches):
            logits = child.logits(ids)
            wanted = None
            if teacher is not None:
                with teacher.in_eval_mode():
                    wanted = teacher.logits(ids)
            first = index * batches.batch_size
            metrics.update(wanted, logits, labels[first : first + len(ids)], where=f"batch {index}")
            advance(ids.numel())
    return metrics


def _tokenizer(given: Any | None, model: Model) -> Any:
    if given is None and isinstance(model, nn.Module):
        raise UsageError(
            "a text file needs a tokenizer, and the model is already loaded",
            expected="tokenizer=, a tokenizer or a directory with one",
        )
    found = model if given is None else given
    return load_tokenizer(found) if isinstance(found, str | Path) else found


def _tokens(
    data: Data, tokenizer: Any | None, max_tokens: int | None, field: str | None, progress: Progress
) -> torch.Tensor:
    if isinstance(data, str | Path):
        text = read_text(data, field=field, chat=partial(written, tokenizer=tokenizer))
        for note in text.notes:
            progress.note(note)
        return tokenize(text, tokenizer, max_tokens=max_tokens)
    ids = data.ids if isinstance(data, Batches) else data
    if max_tokens is None:
        return ids
    return ids[:max_tokens] if ids.dim() == 1 else ids[: max_tokens // ids.shape[1]]


def _found(model: Model) -> Path | nn.Module:
    return resolve_model(model) if isinstance(model, str) else model


def _loaded(model: Model, device: torch.device | str, dtype: torch.dtype | str | None) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    from anyblock.modeling.load import load_model

    loaded: nn.Module = load_model(model, device=device, dtype=dtype)
    return loaded


def _block_size(child: Runner, teacher: Runner | None, tokens: int) -> int:
    contexts = [runner.context for runner in (child, teacher) if runner is not None and runner.context is not None]
    return max(2, min(DEFAULT_BLOCK_SIZE, tokens, *contexts))
