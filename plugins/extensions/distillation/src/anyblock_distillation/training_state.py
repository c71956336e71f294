"""The state of a training in one file, from which a resumed run continues as if it had never stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from anyblock_distillation.curve import Curve
from anyblock_distillation.training import all_finite

_MOMENTS = ("exp_avg", "exp_avg_sq")


class TrainingState:
    """Weights, the optimizer's moments, and the best weights so far.

    Args:
        path: the file; None keeps nothing.
        parameters: by checkpoint name.
        optimizer: AdamW over these parameters.

    Attributes:
        step, tokens: steps that were made, and tokens in them.
        curve: how it went.
        before: error before the first of them.
        best: the best tensors, in a checkpoint's dtypes; empty while nothing was better than the start.
        best_error, best_epoch: of these.
    """

    def __init__(
        self, path: Path | None, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        self._path = path
        self._parameters = parameters
        self._optimizer = optimizer
        self.step = self.tokens = 0
        self.curve = Curve()
        self.before = self.best_error = 0.0
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0

    def judge(self, error: float, values: Mapping[str, torch.Tensor], epoch: int) -> None:
        """Take these tensors for the best if their error is the least so far."""
        self.curve.judge(self.step, error)
        if error < self.best_error:
            self.best, self.best_error, self.best_epoch = dict(values), error, epoch

    def save(self) -> None:
        """Replace the file; a killed run leaves the one before."""
        if self._path is None:
            return
        tensors = {f"best|{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self._parameters.items():
            tensors[f"now|{name}"] = parameter.detach()
            moments = self._optimizer.state.get(parameter, {})
            tensors.update({f"{moment}|{name}": moments[moment] for moment in _MOMENTS if moment in moments})
        numbers = {
            "step": self.step,
            "tokens": self.tokens,
            "before": self.before,
            "best_error": self.best_error,
            "best_epoch": self.best_epoch,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        from safetensors.torch import save_file

        fresh = self._path.with_suffix(".tmp")
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            fresh,
            {"numbers": json.dumps(numbers), "curve": json.dumps(asdict(self.curve))},
        )
        fresh.replace(self._path)

    @torch.no_grad()
    def load(self) -> bool:
        """Resume from the file; return False when there is none, or one with numbers that are not finite."""
        if self._path is None or not self._path.is_file():
            return False
        from safetensors import safe_open

        with safe_open(self._path, framework="pt") as file:
            if "curve" not in file.metadata():  # of a version that kept none
                return False
            numbers, curve = (json.loads(file.metadata()[name]) for name in ("numbers", "curve"))
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not (all_finite(kept.values()) and all(map(math.isfinite, numbers.values()))):
            return False
        self.step, self.tokens, self.before = numbers["step"], numbers["tokens"], numbers["before"]
        self.curve = Curve(**curve)
        self.best_error, self.best_epoch = numbers["best_error"], numbers["best_epoch"]
        self.best = {name.partition("|")[2]: t for name, t in kept.items() if name.startswith("best|")}
        for name, parameter in self._parameters.items():
            parameter.copy_(kept[f"now|{name}"])
            moments = {moment: kept[f"{moment}|{name}"] for moment in _MOMENTS if f"{moment}|{name}" in kept}
            if moments:
                device = parameter.device
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    **{moment: tensor.to(device) for moment, tensor in moments.items()},
                }
        return True
