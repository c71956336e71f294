"""Stage `data`: text into blocks of tokens for calibration, scoring and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyblock.calibration.batches import Batches
from anyblock.calibration.packing import IGNORED, Around, pack_text, require_varied
from anyblock.calibration.text import calibration_split, read_text
from anyblock.calibration.tokenizer import load_tokenizer
from anyblock.config.schema import RunConfig
from anyblock.errors import UsageError
from anyblock.modeling.runner import check_tokens
from anyblock.pipeline.model_source import Source
from anyblock.pipeline.run_folder import RunFolder, digest, file_digest

if TYPE_CHECKING:
    import torch

STAGE: Final = "data"
PARTS = ("calibration", "scoring", "evaluation")
_AROUND: Final = ("before", "after")
_FILE = "tokens.safetensors"
_PACKING: Final = "what the tokenizer puts in front of a text is in front of every window"
"""A run that packed text in another way packs it anew."""


class TokenData:
    """The run's text. It is read and packed at once, so that unusable text is refused before anything is written.

    Args:
        config: the run's configuration.
        source: the model, with its tokenizer.
        run: where the tokens are kept.

    Raises:
        UsageError: no text was given.
        InputError: the text is missing, unreadable, too short for one block, one token over and over, or has a token that
            the model has no embedding for.
    """

    def __init__(self, config: RunConfig, source: Source, run: RunFolder) -> None:
        settings = config.data
        if settings.path is None:
            raise UsageError("no calibration text", expected="a text file", hint="give one with --data FILE")
        text = read_text(settings.path)
        evaluation = None if settings.evaluation is None else read_text(settings.evaluation)
        tokenizer_files = sorted(path for path in source.path.iterdir() if path.is_file() and "token" in path.name)
        self._run = run
        self._batch_size = settings.batch_size
        self._stage = run.stage(
            STAGE,
            {
                "settings": settings.model_dump(mode="json", exclude={"path", "evaluation", "batch_size"}),
                "text": digest([None if part is None else [part.content, part.starts] for part in (text, evaluation)]),
                "tokenizer": {path.name: file_digest(path) for path in tokenizer_files},
                "packing": _PACKING,
            },
        )
        self._packed: dict[str, torch.Tensor] = {}
        if self._stage.skipped:
            return
        import torch

        tokenizer = load_tokenizer(source.path, trust_remote_code=config.trust_remote_code)
        around = Around.of(tokenizer)
        if evaluation is None:
            text, evaluation = calibration_split(text, 1 - settings.held_out)
        calibration = pack_text(text, tokenizer, settings.block_size, max_tokens=settings.calibration_tokens)
        self._packed = {
            "calibration": calibration,
            "scoring": Batches(calibration).spread(settings.scoring_tokens).ids.contiguous(),
            "evaluation": pack_text(evaluation, tokenizer, settings.block_size, max_tokens=settings.evaluation_tokens),
        }
        for part, ids in self._packed.items():
            check_tokens(ids, getattr(source.text_config, "vocab_size", None), tokenizer=tokenizer)
            labels = around.labels(ids)
            require_varied(labels[labels != IGNORED], f"the {part} text")
        for name, special in zip(_AROUND, (around.before, around.after), strict=True):
            if special:
                self._packed[name] = torch.tensor(special, dtype=torch.long)

    def batches(self) -> dict[str, Batches]:
        """Return the batches of each part, kept in the run."""
        from safetensors.torch import load_file, save_file

        if self._packed:
            with self._stage.run() as folder:
                save_file(self._packed, folder / _FILE)
        tokens = load_file(self._run.result(STAGE, _FILE))
        around = Around(*(tuple(tokens[name].tolist()) if name in tokens else () for name in _AROUND))
        return {part: Batches(tokens[part], self._batch_size, around) for part in PARTS}
