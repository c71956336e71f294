"""What core offers to plugins beyond the objects that their hooks are given: loading models, and where to report.

`services()` is for commands and for code that other programs start, such as a model class of an evaluation harness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.cost import Call, Timing
    from anyblock.contract.settings import Section
    from anyblock.progress import Progress


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run. Since 0.2.

    Attributes:
        model: the stock class of transformers, in evaluation mode, on its device.
        tokenizer: the model's own, or the one that was asked for; None without.
        folder: where its files are.
        origin: `hub id@commit` where the files came from the hub, else "".
    """

    model: nn.Module
    tokenizer: Any
    folder: Path
    origin: str


@dataclass(frozen=True)
class PreparedChild:
    """A finished child in the form in which others get it, with what its run says about it. Since 0.2.

    Attributes:
        files: the files that are not hidden, by their names relative to the child or the export.
        distribution: the adapter's distribution.
        remote_code: whether transformers needs the code that comes with the weights.
        summary: the run's `summary.json`; without a command where the run is not at hand.
        sections: the sections of the run's report in Markdown, by their headings: `Quality`, `Budget`, `Costs`, `Layers` ...
    """

    files: Mapping[str, Path]
    distribution: str
    remote_code: bool
    summary: Mapping[str, Any]
    sections: Mapping[str, str]


class Services(Protocol):
    """Core's services. Since 0.2."""

    def load_model(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        tokenizer: str | Path | Literal[False] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> LoadedModel:
        """Load a teacher, a child or any model that an installed adapter serves.

        Args:
            model: a folder or a hub id.
            revision: revision of a hub id.
            tokenizer: a folder with a tokenizer; None takes the model's own; False goes without.
            device: `cpu`, `cuda`, ..., or `auto`.
            dtype: what is computed in; `auto` is the checkpoint's own where the device is fast in it.
            trust_remote_code: run the code that comes with the checkpoint.

        Raises:
            InputError: there is no such model, or it cannot be used.
        """

    def prepare_child(
        self,
        child: str | PathLike[str],
        *,
        format_name: str | None = None,
        run: str | PathLike[str] | None = None,
    ) -> AbstractContextManager[PreparedChild]:
        """Check a finished child and give its files; an export, and a conversion, are gone afterwards.

        Args:
            child: a subblock checkpoint, or a child that `save_pretrained` wrote, of which one is made.
            format_name: give what `anyblock export` writes in this format; None gives the child itself.
            run: its run folder; None is `CHILD.run` next to the child, if it is there and is this child's.

        Raises:
            InputError: the child, the run or the format cannot be used.
        """

    def output_folder(self, target: Path, source: Path, *, overwrite: bool) -> AbstractContextManager[Path]:
        """Yield an empty folder that becomes `target` when the block ends without an error; it must not replace `source`."""
        ...

    def rolling_windows(self, text: str, loaded: LoadedModel, length: int) -> list[tuple[list[int], list[int]]] | None:
        """Cut a text into the windows over which `anyblock evaluate` measures perplexity.

        Args:
            text: any length.
            loaded: the model, whose tokenizer decides what stands in front of every window.
            length: how many tokens the model is given at once, at most.

        Returns:
            What is known and what is predicted after it in each window, as token ids; together at most `length` + 1, since
            the last one is only predicted. Every token of the text is predicted once. None where the tokenizer puts
            nothing (such as BOS) in front of a text.
        """

    def check_tokens(self, ids: torch.Tensor, loaded: LoadedModel) -> None:
        """Check that a model has embeddings for token ids, int64 of any shape.

        Raises:
            InputError: it has none for one of them; the message names the token.
        """

    def time_calls(
        self,
        calls: Mapping[str, Call],
        *,
        device: torch.device,
        repeats: int,
        warmup: int = 1,
        progress: Progress | None = None,
    ) -> dict[str, Timing]:
        """Time calls against one another, in turns, so that a slow phase of the machine falls on all of them.

        Args:
            calls: what to time, by name.
            device: where they run.
            repeats: rounds that count.
            warmup: rounds before them that do not.
            progress: where to report; None is the terminal.

        Raises:
            ExecutionError: a call failed; names it.
        """

    def new_cache(self, model: nn.Module) -> dict[str, Any]:
        """Return an empty key-value cache, as the argument that the model's forward pass has for it."""

    def restorer(self, cache: Any) -> Callable[[], None]:
        """Return a function that puts a cache back into its present state."""

    def run_settings(self, model_type: str | None = None) -> type[Section]:
        """Return the pydantic model of a run's YAML, with the sections of all installed extensions, and of a family's kinds."""

    def run_task(self, folder: Path, task: str) -> None:
        """Compute one task of a run in this process and keep its result, unless it has one. Since 0.2.

        What earlier tasks loaded is used again.

        Args:
            folder: the folder of tasks, as an executor is given it.
            task: the task's id.

        Raises:
            InputError: this process does not see the folder, or has other distributions than the run.
            AnyBlockError: the computation failed. Whatever is raised is in the folder's `logs` as well.
        """

    def progress(self) -> Progress:
        """Return where the terminal shows long work: `task(description, total=, unit=)` and `note(message)`."""


def services() -> Services:
    """Return core's services; what they need is imported when they are called."""
    # By name, as every plugin is: the contract lies below everything that implements it.
    found: Services = EntryPoint("services", "anyblock.services:CoreServices", "anyblock").load()()
    return found
