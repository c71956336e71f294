"""Stage `data`: text into blocks of tokens for calibration, scoring and evaluation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyblock.calibration.batches import Batches
from anyblock.calibration.mixture import pack_mixture
from anyblock.calibration.packing import IGNORED, Around, require_varied
from anyblock.calibration.text import Text, calibration_split, read_text
from anyblock.calibration.tokenizer import load_tokenizer, written
from anyblock.checkpoint.atomic import write_tensors_atomic
from anyblock.config.schema import DataConfig, RunConfig, TextSource
from anyblock.errors import UsageError
from anyblock.modeling.runner import check_tokens
from anyblock.run.model_source import Source
from anyblock.run.run_folder import RunFolder, digest, file_digest

if TYPE_CHECKING:
    import torch

STAGE: Final = "data"
PARTS = ("calibration", "scoring", "evaluation")
_AROUND: Final = ("before", "after")
_FILE = "tokens.safetensors"
_PACKING: Final = "what the tokenizer puts in front of a text is in front of every window"
"""A run that packed text in another way packs it anew."""


_Texts = list[tuple[str, Text, float]]
"""Name, content and weight of each."""


class _Tokenizer:
    """The model's tokenizer, loaded when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def loaded(self) -> Any:
        return load_tokenizer(self._path)

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Write a conversation with the model's template; of a model without one, its turns on lines of their own."""
        return written(messages, self.loaded)


def _read(settings: DataConfig, given: str | tuple[str | TextSource, ...], tokenizer: _Tokenizer) -> _Texts:
    sources = settings.sources(given)
    return [
        (source.path, read_text(source.path, field=source.field, chat=tokenizer.chat), source.weight)
        for source in sources
    ]


def _facts(texts: _Texts) -> list[list[Any]]:
    return [[text.content, text.starts, *([weight] if len(texts) > 1 else [])] for _, text, weight in texts]


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
        tokenizer = _Tokenizer(source.path)
        texts = _read(settings, settings.path, tokenizer)
        evaluation = None if settings.evaluation is None else _read(settings, settings.evaluation, tokenizer)
        tokenizer_files = sorted(path for path in source.path.iterdir() if path.is_file() and "token" in path.name)
        self._run = run
        self._batch_size = settings.batch_size
        self._stage = run.stage(
            STAGE,
            {
                "settings": settings.model_dump(mode="json", exclude={"path", "evaluation", "field", "batch_size"}),
                "text": digest([None if part is None else _facts(part) for part in (texts, evaluation)]),
                "tokenizer": {path.name: file_digest(path) for path in tokenizer_files},
                "packing": _PACKING,
            },
        )
        self._packed: dict[str, torch.Tensor] = {}
        self.notes = [note for _, text, _ in [*texts, *(evaluation or ())] for note in text.notes]
        """What was read and left out, a line each."""
        if self._stage.skipped:
            return
        import torch

        around = Around.of(tokenizer.loaded)
        if evaluation is None:
            cut = [(name, *calibration_split(text, 1 - settings.held_out), weight) for name, text, weight in texts]
            texts = [(name, first, weight) for name, first, _, weight in cut]
            evaluation = [(name, last, weight) for name, _, last, weight in cut]
        packed: dict[str, torch.Tensor] = {}
        for part, given, most in (
            ("calibration", texts, settings.calibration_tokens),
            ("evaluation", evaluation, settings.evaluation_tokens),
        ):
            packed[part], notes = pack_mixture(given, tokenizer.loaded, settings.block_size, max_tokens=most)
            self.notes += [f"{part}: {note}" for note in notes]
        scoring = Batches(packed["calibration"]).spread(settings.scoring_tokens).ids.contiguous()
        self._packed = {"calibration": packed["calibration"], "scoring": scoring, "evaluation": packed["evaluation"]}
        for part, ids in self._packed.items():
            check_tokens(ids, getattr(source.text_config, "vocab_size", None), tokenizer=tokenizer.loaded)
            labels = around.labels(ids)
            require_varied(labels[labels != IGNORED], f"the {part} text")
        for name, special in zip(_AROUND, (around.before, around.after), strict=True):
            if special:
                self._packed[name] = torch.tensor(special, dtype=torch.long)

    @property
    def calibrates_anew(self) -> bool:
        """Whether the run was calibrated already, and on other tokens."""
        return bool(self._packed) and self._run.is_finished(STAGE) and not self.calibration.ids.equal(self._kept().ids)

    @property
    def calibration(self) -> Batches:
        """The batches for calibration, before anything is kept in the run."""
        return Batches(self._packed["calibration"], self._batch_size) if self._packed else self._kept()

    def _kept(self) -> Batches:
        from safetensors.torch import load_file

        return Batches(load_file(self._run.result(STAGE, _FILE))["calibration"], self._batch_size)

    def batches(self) -> dict[str, Batches]:
        """Return the batches of each part, kept in the run."""
        if self._packed:
            with self._stage.run() as folder:
                write_tensors_atomic(folder / _FILE, self._packed)
        else:  # was found before the run was held
            self._run.progress.emit("stage", stage=STAGE, state="reused")
        return read_batches(self._run, self._batch_size)


def read_batches(run: RunFolder, batch_size: int) -> dict[str, Batches]:
    """Return the batches of each part, from the finished stage."""
    from safetensors.torch import load_file

    tokens = load_file(run.result(STAGE, _FILE))
    around = Around(*(tuple(tokens[name].tolist()) if name in tokens else () for name in _AROUND))
    return {part: Batches(tokens[part], batch_size, around) for part in PARTS}
