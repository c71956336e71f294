"""Stage `data`: text into blocks of tokens for calibration, scoring and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.calibration.text import calibration_split, pack_text, read_text, require_varied
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.config.schema import RunConfig
from anyblock.errors import UsageError
from anyblock.pipeline.run_folder import RunFolder, digest, file_digest

if TYPE_CHECKING:
    import torch

STAGE: Final = "data"
PARTS = ("calibration", "scoring", "evaluation")
_FILE = "tokens.safetensors"


class TokenData:
    """The run's text. It is read and packed at once, so that unusable text is refused before anything is written.

    Args:
        config: the run's configuration.
        model: the directory with the tokenizer.
        run: where the tokens are kept.

    Raises:
        UsageError: no text was given.
        InputError: the text is missing, unreadable, too short for one block, or one token over and over.
    """

    def __init__(self, config: RunConfig, model: Path, run: RunFolder) -> None:
        settings = config.data
        if settings.path is None:
            raise UsageError("no calibration text", expected="a text file", hint="give one with --data FILE")
        text = read_text(settings.path)
        evaluation = None if settings.evaluation is None else read_text(settings.evaluation)
        tokenizer_files = sorted(path for path in model.iterdir() if path.is_file() and "token" in path.name)
        self._run = run
        self._batch_size = settings.batch_size
        self._stage = run.stage(
            STAGE,
            {
                "settings": settings.model_dump(mode="json", exclude={"path", "evaluation", "batch_size"}),
                "text": digest([text, evaluation]),
                "tokenizer": {path.name: file_digest(path) for path in tokenizer_files},
            },
        )
        self._packed: dict[str, torch.Tensor] = {}
        if self._stage.skipped:
            return
        tokenizer = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
        if evaluation is None:
            text, evaluation = calibration_split(text, 1 - settings.held_out)
        calibration = pack_text(text, tokenizer, settings.block_size, max_tokens=settings.calibration_tokens)
        self._packed = {
            "calibration": calibration,
            "scoring": Batches(calibration).spread(settings.scoring_tokens).ids.contiguous(),
            "evaluation": pack_text(evaluation, tokenizer, settings.block_size, max_tokens=settings.evaluation_tokens),
        }
        for part, tokens in self._packed.items():
            require_varied(tokens, f"the {part} text")

    def batches(self) -> dict[str, Batches]:
        """Return the batches of each part, kept in the run."""
        from safetensors.torch import load_file, save_file

        if self._packed:
            with self._stage.run() as folder:
                save_file(self._packed, folder / _FILE)
        tokens = load_file(self._run.result(STAGE, _FILE))
        return {part: Batches(tokens[part], self._batch_size) for part in PARTS}
