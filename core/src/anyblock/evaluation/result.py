"""What an evaluation found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from anyblock.errors import ConfigError
from anyblock.evaluation.metrics import perplexity

if TYPE_CHECKING:
    from anyblock.calibration.batches import Batches
    from anyblock.evaluation.metrics import TokenScores
    from anyblock.modeling.runner import Runner


@dataclass(frozen=True)
class ModelFigures:
    """One model's own figures.

    Attributes:
        loss: mean negative log-likelihood of the next token, in nats.
        parameters: elements of all parameters; tied ones count once.
        bytes: what they take.
        tokens_per_second: tokens through the forward pass, the first batch left out where there are others.
    """

    loss: float
    parameters: int
    bytes: int
    tokens_per_second: float

    @classmethod
    def of(cls, runner: Runner, loss: float) -> Self:
        """Return the figures of a model that has run, with its loss."""
        return cls(loss, runner.parameters, runner.bytes, runner.tokens_per_second)

    @property
    def perplexity(self) -> float:
        """`exp(loss)`."""
        return perplexity(self.loss)


@dataclass(frozen=True)
class EvaluationResult:
    """A model's quality on a text, and how near it is to a teacher if there was one.

    Attributes:
        child: the evaluated model's figures.
        tokens: positions that divergence and agreement are averages over.
        predicted: next tokens that losses are averages over.
        block_size: tokens of one window.
        stride: tokens from one window to the next; None for windows that do not overlap.
        data_key: hash of the token ids, so that results on other data are distinguished.
        bos: whether each window begins with what the tokenizer puts in front of a text; None for token ids that were given.
        teacher: the teacher's figures.
        kl_per_token: mean KL(teacher || child) in nats.
        top1, top5: share of positions at which the teacher's first choice is among the child's first 1 or 5.
    """

    child: ModelFigures
    tokens: int
    predicted: int
    block_size: int
    stride: int | None
    data_key: str
    bos: bool | None = None
    teacher: ModelFigures | None = None
    kl_per_token: float | None = None
    top1: float | None = None
    top5: float | None = None

    @classmethod
    def measured(
        cls, scores: TokenScores, batches: Batches, child: Runner, teacher: Runner | None, stride: int | None = None
    ) -> Self:
        """Return the result of models that have run.

        Args:
            scores: averages over the text.
            batches: the text.
            child: the evaluated model.
            teacher: what it was compared with.
            stride: see the attribute.
        """
        return cls(
            child=ModelFigures.of(child, scores.loss),
            tokens=scores.tokens,
            predicted=scores.predicted,
            block_size=batches.block_size,
            stride=stride,
            data_key=batches.key,
            bos=batches.bos,
            teacher=None
            if teacher is None or scores.teacher_loss is None
            else ModelFigures.of(teacher, scores.teacher_loss),
            kl_per_token=scores.kl,
            top1=scores.top1,
            top5=scores.top5,
        )

    @property
    def loss(self) -> float:
        """The evaluated model's mean negative log-likelihood, in nats."""
        return self.child.loss

    @property
    def perplexity(self) -> float:
        """The evaluated model's perplexity."""
        return self.child.perplexity

    @property
    def parameters(self) -> int:
        """The evaluated model's parameters."""
        return self.child.parameters

    @property
    def bytes(self) -> int:
        """The bytes of the evaluated model's parameters."""
        return self.child.bytes

    @property
    def tokens_per_second(self) -> float:
        """The evaluated model's speed."""
        return self.child.tokens_per_second

    @property
    def windows(self) -> str:
        """The definition that the figures follow, in words, for instance `8191 predicted tokens, windows of
        1024 tokens sliding by a stride of 512, BOS in front of each`."""
        how = "without overlap" if self.stride is None else f"sliding by a stride of {self.stride}"
        front = {None: "", True: ", BOS in front of each", False: ", no BOS in front"}[self.bos]
        return f"{self.predicted} predicted tokens, windows of {self.block_size} tokens {how}{front}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; each model also has its `perplexity`, null where no float can hold it."""
        data = asdict(self)
        for name, figures in (("child", self.child), ("teacher", self.teacher)):
            if figures is not None:
                data[name]["perplexity"] = figures.perplexity if math.isfinite(figures.perplexity) else None
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: a field is missing or unknown.
        """
        try:
            teacher = data.get("teacher")
            return cls(**{**data, "child": _figures(data["child"]), "teacher": _figures(teacher) if teacher else None})
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"not an evaluation result: {error}", expected=", ".join(field.name for field in fields(cls))
            ) from error


def _figures(data: Mapping[str, Any]) -> ModelFigures:
    return ModelFigures(**{name: value for name, value in data.items() if name != "perplexity"})
