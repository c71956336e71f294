"""One model under evaluation: its forward pass, its speed and its size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from anyblock.errors import ExecutionError, InputError
from anyblock.modeling.device import synchronize


class Runner:
    """A causal language model that turns tokens into logits and keeps the time.

    Args:
        model: anything that takes `input_ids` and returns logits, or an object with `logits`.
        name: how an error calls it.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.name = name
        self._timed: list[tuple[int, float]] = []
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model can embed; None when it does not say."""
        model: Any = self.model
        embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
        rows = getattr(embedding, "num_embeddings", None)
        return int(rows) if rows is not None else None

    @property
    def context(self) -> int | None:
        """The length the model was made for; None when its config does not say."""
        config: Any = getattr(self.model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        length = getattr(text, "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    def sequences_for(self, length: int, logits: int) -> int:
        """Return how many sequences of this length have at most so many logits together: 1 to 32."""
        return max(1, min(32, logits // (length * (self.vocabulary or 1 << 17))))

    def check_ids(self, ids: torch.Tensor, tokenizer: Any | None = None) -> None:
        """Refuse tokens that the model cannot embed; see `check_tokens`."""
        check_tokens(ids, self.vocabulary, model=self.name, tokenizer=tokenizer)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits `[batch, length, vocabulary]` for `ids` `[batch, length]`.

        Raises:
            ExecutionError: the device has not enough memory.
        """
        ids = ids.to(self.device)
        with enough_memory(self.device, self.name, list(ids.shape)), torch.no_grad():
            synchronize(self.device)
            start = time.perf_counter()
            output = self.model(input_ids=ids, use_cache=False)
            synchronize(self.device)
            self._timed.append((ids.numel(), time.perf_counter() - start))
        logits = output if isinstance(output, torch.Tensor) else output.logits
        if not isinstance(logits, torch.Tensor):
            raise InputError(f"the {self.name} returns {type(logits).__name__}", expected="logits")
        return logits

    @property
    def tokens_per_second(self) -> float:
        """Tokens through the forward pass a second; the first batch, which warms up, only counts if it is alone."""
        timed = self._timed[1:] or self._timed
        seconds = sum(seconds for _, seconds in timed)
        return sum(tokens for tokens, _ in timed) / seconds if seconds > 0 else 0.0

    @property
    def parameters(self) -> int:
        """Elements of all parameters; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def bytes(self) -> int:
        """Bytes of all parameters; shared ones count once."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    @contextmanager
    def in_eval_mode(self) -> Iterator[None]:
        """Switch dropout off, and leave the model as it was found."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)


@contextmanager
def enough_memory(device: torch.device, name: str, shape: list[int]) -> Iterator[None]:
    """Say what did not fit when torch finds too little memory.

    Args:
        device: where the model runs.
        name: how the error calls the model.
        shape: of the batch.

    Raises:
        ExecutionError: the device has not enough memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ExecutionError(
            f"{device} has not enough memory to run the {name} on {shape} tokens",
            hint="lower the batch size or the block size, or choose another device",
        ) from error


def check_tokens(
    ids: torch.Tensor, vocabulary: int | None, *, model: str = "model", tokenizer: Any | None = None
) -> None:
    """Refuse tokens that a model cannot embed.

    Args:
        ids: int64, any shape.
        vocabulary: how many tokens the model has embeddings for; None when it does not say.
        model: names the model in the error.
        tokenizer: where the ids come from, to name the token.

    Raises:
        InputError: a token id is outside the vocabulary, which means that the tokenizer belongs to another model.
    """
    if vocabulary is None or ids.numel() == 0:
        return
    highest, lowest = int(ids.max()), int(ids.min())
    if highest < vocabulary and lowest >= 0:
        return
    beyond = highest if highest >= vocabulary else lowest
    name = "" if tokenizer is None else f" ({tokenizer.convert_ids_to_tokens(beyond)!r})"
    raise InputError(
        f"token id {beyond}{name} is outside the {model}'s vocabulary of {vocabulary}",
        expected=f"token ids from 0 to {vocabulary - 1}",
        hint="use the tokenizer that belongs to the model",
    )


def check_vocabularies(child: Runner, teacher: Runner | None) -> None:
    """Refuse models whose predictions are not over the same tokens.

    Raises:
        InputError: the vocabularies differ in size.
    """
    if teacher is None or child.vocabulary is None or teacher.vocabulary is None:
        return
    if child.vocabulary != teacher.vocabulary:
        raise InputError(
            f"the teacher has a vocabulary of {teacher.vocabulary} tokens and the child one of {child.vocabulary}",
            expected="the same vocabulary",
        )
