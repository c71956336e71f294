"""Stage `data`: text into blocks of tokens for calibration, scoring and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyblock.calibration.batches import Batches
from anyblock.calibration.text import calibration_split, pack_text, read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.errors import UsageError
from anyblock.pipeline.context import RunContext
from anyblock.pipeline.run_folder import digest, file_digest

if TYPE_CHECKING:
    import torch

PARTS = ("calibration", "scoring", "evaluation")


def run_data(context: RunContext) -> dict[str, Batches]:
    """Tokenize with the model's tokenizer and pack; the evaluation text is never calibrated on.

    Raises:
        UsageError: no text was given.
        InputError: the text is missing, unreadable, or too short for one block.
    """
    from safetensors.torch import load_file, save_file

    settings = context.config.data
    if settings.path is None:
        raise UsageError("no calibration text", expected="a text file", hint="give one with --data FILE")
    text = read_text(settings.path)
    evaluation = None if settings.evaluation is None else read_text(settings.evaluation)
    tokenizer_files = sorted(path for path in context.teacher.path.iterdir() if path.is_file() and "token" in path.name)
    stage = context.run.stage(
        "1-data",
        {
            "settings": settings.model_dump(mode="json", exclude={"path", "evaluation", "batch_size"}),
            "text": digest([text, evaluation]),
            "tokenizer": {path.name: file_digest(path) for path in tokenizer_files},
        },
    )
    if not stage.skipped:
        tokenizer = load_tokenizer(context.teacher.path, trust_remote_code=context.config.trust_remote_code)
        if evaluation is None:
            text, evaluation = calibration_split(text, 1 - settings.held_out)
        calibration = pack_text(text, tokenizer, settings.block_size, max_tokens=settings.calibration_tokens)
        held_out = pack_text(evaluation, tokenizer, settings.block_size, max_tokens=settings.evaluation_tokens)
        with stage.run() as folder:
            save_file(
                {
                    "calibration": calibration,
                    "scoring": _spread(calibration, settings.scoring_tokens).contiguous(),
                    "evaluation": held_out,
                },
                folder / "tokens.safetensors",
            )
    tokens = load_file(context.run.result("1-data", "tokens.safetensors"))
    return {part: Batches(tokens[part], settings.batch_size) for part in PARTS}


def _spread(blocks: torch.Tensor, max_tokens: int) -> torch.Tensor:
    """Return blocks from all over the text, evenly spaced, with at most `max_tokens` tokens (at least one block)."""
    count = max(1, min(len(blocks), max_tokens // blocks.shape[1]))
    return blocks[[index * len(blocks) // count for index in range(count)]]


def text_source(path: str | Path | None) -> str:
    """Return how a report names a text: its file name."""
    return "-" if path is None else Path(path).name
