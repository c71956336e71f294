"""The model a run starts from: where it is, and what its config and headers say; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from anyblock.candidates.stand_ins import stand_ins
from anyblock.candidates.storage import BYTES, Storage
from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.config_view import config_view
from anyblock.checkpoint.hub import origin_of, resolve_model, split_revision
from anyblock.checkpoint.source_checkpoint import SourceCheckpoint
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.config.schema import RunConfig
from anyblock.contract.blocks import BlockConfig, Half
from anyblock.contract.candidate_source import CandidateSource, StandIn
from anyblock.contract.export_format import ExportFormat
from anyblock.contract.kind_settings import ChannelSettings, KindSettings
from anyblock.contract.storage_type import StorageType
from anyblock.conversion.plan import plan_conversion
from anyblock.errors import UsageError
from anyblock.family import ModelFamily, get_family
from anyblock.modeling.complete import skeleton_of
from anyblock.modeling.skeleton import load_hf_config

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, Mapping[str, "torch.Tensor"]]
"""`{group: {tensor name: tensor on the meta device}}`."""


@dataclass(frozen=True)
class Source:
    """A model before anything is loaded.

    Attributes:
        path: a Hugging Face directory, a subblock checkpoint or a child.
        model_type: from `config.json`.
        family: its adapter.
        config: a view of `config.json` with Hugging Face's defaults.
        block_configs: one a layer.
        shapes: every tensor's shape and dtype by group.
        notes: what a user should hear of the model, a sentence each.
    """

    path: Path
    model_type: str
    family: ModelFamily
    config: Any
    block_configs: list[BlockConfig]
    shapes: Shapes
    notes: Sequence[str] = ()

    @property
    def text_config(self) -> Any:
        """The language model's part of the config."""
        return self.family.language_model_config(self.config)


def read_source(path: Path) -> Source:
    """Read config and headers.

    Raises:
        ConfigError: `config.json` is unusable.
        CheckpointError: the files are damaged, or do not hold exactly the tensors of the model.
        UnsupportedModelError: no installed adapter serves the model.
    """
    raw = read_config(path)
    model_type = raw["model_type"]
    adapter = get_family(model_type)
    if not is_subblock_checkpoint(path):
        plan = plan_conversion(adapter, SourceCheckpoint.open(path), raw)
        return Source(path, model_type, adapter, plan.view, list(plan.block_configs), plan.shapes, plan.notes)
    checkpoint = SubblockCheckpoint.open(path)
    skeleton_of(checkpoint, adapter, load_hf_config(path))
    view = config_view(path)
    shapes = {group: checkpoint.meta(group) for group in checkpoint.groups}
    return Source(path, model_type, adapter, view, checkpoint.block_configs, shapes)


def pin_model(config: RunConfig, run: Path) -> tuple[RunConfig, Path]:
    """Return the configuration with a hub id's commit as its revision, and the model's directory.

    A run that is started again without a revision continues with the commit in its `run.yaml`, though the branch may have
    moved on meanwhile; naming a revision, if only `main`, looks it up anew.

    Args:
        config: what was asked for.
        run: the run folder, which need not be there yet.

    Raises:
        InputError: see `anyblock.checkpoint.hub.resolve_model`.
    """
    if Path(config.model).expanduser().exists():
        return config, resolve_model(config.model, revision=config.revision)
    name, own = split_revision(config.model)
    asked = config.revision or own or _recorded(run, name)
    folder = resolve_model(config.model, revision=asked)
    commit = (origin_of(folder) or "").rpartition("@")[2]
    return config.model_copy(update={"model": name, "revision": commit or asked}), folder


def _recorded(run: Path, model: str) -> str | None:
    """Return the revision in the `run.yaml` of an earlier start with the same model."""
    try:
        earlier = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(earlier, dict) or earlier.get("model") != model:
        return None
    revision = earlier.get("revision")
    return revision if isinstance(revision, str) else None


def run_storage(config: RunConfig, source: Source) -> Storage | None:
    """Return the storage types that a run searches; None where it searches none.

    Raises:
        UsageError: there is no such type, no distribution gives any, the types are of several formats, or none of the model's
            tensors can be stored in one of them.
    """
    import torch

    settings, family = config.storage, source.family
    budgeted = any(bound.cost == BYTES for bound in config.search.bounds())
    if not settings.types and not (settings.types is None and budgeted):
        if budgeted or settings.embeddings:
            what = "a budget on bytes" if budgeted else "storage.embeddings"
            raise UsageError(f"{what} without types for the halves", hint="name some in storage.types")
        return None
    known: dict[str, StorageType] = family.named("types")
    names = settings.types or [name for name, own in known.items() if own.usual]
    if not names:
        raise UsageError(
            "a budget on bytes needs storage types, and none of the installed distributions gives any",
            hint="python -m pip install 'anyblock-gguf[llama-cpp]'",
        )
    named = [*(settings.types or ()), *(settings.embeddings or ())]
    formats = {family.one("types", name).format for name in [*names, *named]}
    if len(formats) > 1:
        raise UsageError(f"storage types of several formats: {', '.join(sorted(formats))}", expected="those of one")
    known = {name: own for name, own in known.items() if own.format in formats}
    origins = family.origins("types")
    found = Storage((), (names[0],), known, {f"storage {name}": str(origins[name]) for name in [*names, *named]})
    tensors = {name: own for group in source.shapes.values() for name, own in group.items()}
    stored = {name: found.storable(name, tensors) for name in [*names, *named]}
    for name in named:
        if stored[name] != [name]:
            raise UsageError(
                f"no tensor of this model can be stored in {name}, for the length of its rows",
                hint=f"name in its place what they would have: {', '.join(stored[name])}",
            )
    sizes = {own: found.nbytes(own, tensors) for name in [*names, *named] for own in stored[name]}
    types, outside = (
        tuple(sorted({own for name in some for own in stored[name]}, key=lambda name: (-sizes[name], name)))
        for some in (names, settings.embeddings or names)
    )
    for name in sizes:
        found.rounded(name, {"": torch.zeros(1, 256)})
    if family.one("metrics", config.scoring.metric).sees == "block_output":  # nothing of embeddings and head
        if len(settings.embeddings or ()) > 1:
            raise UsageError(
                f"several storage.embeddings, which scoring.metric={config.scoring.metric} cannot compare",
                expected="one of them, or a metric on logits such as kl",
            )
        outside = outside[:1]
    return replace(found, types=types, outside=outside)


def run_multiples(
    config: RunConfig, family: ModelFamily, kind: KindSettings, half: Half | None = None
) -> tuple[int, ...]:
    """Return numbers, the best first, of which sizes in a half (None: in all layers) should be multiples for the runtime."""
    pruning, channels = config.pruning, isinstance(kind, ChannelSettings)
    form = family.one("formats", pruning.sizes_for) if pruning.sizes_for else ExportFormat
    # Devices share heads and channels, those of each expert too; each has all experts, and the whole residual stream.
    devices = pruning.tensor_parallel if half == "attention" or (half and channels) else 1
    return tuple(each * devices for each in (form.width_multiples if channels else (1,)))


def run_sources(config: RunConfig, source: Source) -> dict[str, CandidateSource]:
    """Return the sources of candidates that a run uses, by name, with their settings.

    Args:
        config: what was asked for.
        source: the model as it was given.
    """

    @cache
    def places(half: Half) -> Mapping[int, StandIn]:
        """Return where linear maps go; two models are built only if a source asks."""
        hf_config = load_hf_config(source.path)
        return stand_ins(source.family, hf_config, source.block_configs, source.shapes, half)

    found = {}
    for name, offered in source.family.named("sources").items():
        made = offered.of_run(config.section(f"pruning.{name}", offered.settings), config.pruning)
        if made is not None:
            made.stand_in = lambda layer, half: places(half)[layer]
            found[name] = made
    return found
