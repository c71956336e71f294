"""Core's services for plugins, see `anyblock.contract.services`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anyblock.contract.services import LoadedModel, PreparedChild, Services
from anyblock.contract.trust import runs_code

if TYPE_CHECKING:
    import torch
    from torch import nn

    from anyblock.contract.cost import Call, Timing
    from anyblock.contract.settings import Section
    from anyblock.progress import Progress


class CoreServices(Services):
    """What plugins get."""

    @runs_code
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
        """See `Services.load_model`."""
        from anyblock.calibration.tokenizer import load_tokenizer
        from anyblock.checkpoint.hub import recorded_origin, resolve_model
        from anyblock.modeling.device import compute_dtype, resolve_device, stored_dtype
        from anyblock.modeling.load import load_model
        from anyblock.modeling.skeleton import load_hf_config

        folder = resolve_model(str(model), revision=revision)
        target = resolve_device(device)
        config = load_hf_config(folder)
        loaded = load_model(folder, device=target, dtype=compute_dtype(dtype, stored_dtype(config), target))
        place = folder if tokenizer is None else tokenizer
        own = load_tokenizer(place) if place else None
        return LoadedModel(loaded, own, folder, recorded_origin(folder) or "")

    def prepare_child(
        self,
        child: str | PathLike[str],
        *,
        format_name: str | None = None,
        run: str | PathLike[str] | None = None,
    ) -> AbstractContextManager[PreparedChild]:
        """See `Services.prepare_child`."""
        from anyblock.pipeline.prepared_child import prepare_child

        return prepare_child(child, format_name=format_name, run=run)

    def output_folder(self, target: Path, source: Path, *, overwrite: bool) -> AbstractContextManager[Path]:
        """See `Services.output_folder`."""
        from anyblock.checkpoint.atomic import atomic_directory

        return atomic_directory(target, overwrite=overwrite, sources=[source])

    def rolling_windows(self, text: str, loaded: LoadedModel, length: int) -> list[tuple[list[int], list[int]]] | None:
        """See `Services.rolling_windows`."""
        from anyblock.calibration.packing import IGNORED, Around, tokenize
        from anyblock.evaluation.windows import windows

        around = Around.of(loaded.tokenizer)
        if not around.before:
            return None
        tokens = tokenize(text, loaded.tokenizer)
        if not len(tokens):
            return []
        ids, labels = windows(tokens, min(len(around.before) + len(tokens), length + 1), around=around)
        known = (labels != IGNORED).int().argmax(dim=1).tolist()
        return [(row[:first], row[first:]) for row, first in zip(ids.tolist(), known, strict=True)]

    def check_tokens(self, ids: torch.Tensor, loaded: LoadedModel) -> None:
        """See `Services.check_tokens`."""
        from anyblock.modeling.runner import Runner

        Runner(loaded.model, "model").check_ids(ids, loaded.tokenizer)

    def time_calls(
        self,
        calls: Mapping[str, Call],
        *,
        device: torch.device,
        repeats: int,
        warmup: int = 1,
        progress: Progress | None = None,
    ) -> dict[str, Timing]:
        """See `Services.time_calls`."""
        from anyblock.measuring.timing import measure

        return measure(calls, device=device, warmup=warmup, repeats=repeats, progress=progress or self.progress())

    def new_cache(self, model: nn.Module) -> dict[str, Any]:
        """See `Services.new_cache`."""
        from anyblock.costs.probed_cache import cache_argument
        from anyblock.measuring.replay import new_cache_of

        return cache_argument(model, new_cache_of(model.config))

    def restorer(self, cache: Any) -> Callable[[], None]:
        """See `Services.restorer`."""
        from anyblock.measuring.replay import restorer

        return restorer(cache)

    def run_settings(self, model_type: str | None = None) -> type[Section]:
        """See `Services.run_settings`."""
        from anyblock.config.extension_sections import sections_of, with_sections
        from anyblock.config.schema import RunConfig
        from anyblock.extensions import installed_extensions
        from anyblock.family import get_family

        return with_sections(RunConfig, sections_of(get_family(model_type) if model_type else installed_extensions()))

    def run_task(self, folder: Path, task: str) -> None:
        """See `Services.run_task`."""
        from anyblock.pipeline.run_task import run_task

        run_task(folder, task)

    def progress(self) -> Progress:
        """See `Services.progress`."""
        from anyblock.rich_progress import terminal_progress

        return terminal_progress()
