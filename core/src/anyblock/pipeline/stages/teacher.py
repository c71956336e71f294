"""The run's teacher: a subblock checkpoint, converted into the run folder unless the model is one already."""

from __future__ import annotations

from pathlib import Path

from anyblock.checkpoint.config import read_config
from anyblock.checkpoint.convert import convert_model
from anyblock.checkpoint.hub import resolve_model
from anyblock.checkpoint.subblocks import SubblockCheckpoint, is_subblock_checkpoint
from anyblock.config.schema import RunConfig
from anyblock.errors import AnyBlockError, ConfigError
from anyblock.family import ModelFamily, get_family
from anyblock.pipeline.run_folder import RunFolder, digest, file_digest, read_json
from anyblock.progress import Progress

STAGE = "0-teacher"


def family_for(config: RunConfig, path: Path) -> ModelFamily:
    """Return the adapter that serves the model.

    Raises:
        ConfigError: `family` is given and is not the model's.
        UnsupportedModelError: no installed adapter serves it.
    """
    model_type = read_config(path)["model_type"]
    if config.family is not None and config.family != model_type:
        raise ConfigError(
            f"family is {config.family!r}, but {path / 'config.json'} has the model_type {model_type!r}",
            expected="the model's own model_type, or no `family` at all",
        )
    return get_family(model_type)


def run_teacher(config: RunConfig, run: RunFolder, progress: Progress) -> tuple[SubblockCheckpoint, ModelFamily]:
    """Return the teacher as a subblock checkpoint, and its adapter."""
    source = resolve_model(config.model, revision=config.revision)
    family = family_for(config, source)
    if is_subblock_checkpoint(source):
        return SubblockCheckpoint.open(source), family
    stage = run.stage(
        STAGE, {"source": _source_key(source), "adapter": f"{family.distribution} {family.version}", "origin": str(source)}
    )
    output = run.path / "teacher"
    if stage.skipped and _fingerprint(output) == read_json(run.result(STAGE, "teacher.json"))["fingerprint"]:
        return SubblockCheckpoint.open(output), family
    with stage.run() as folder:
        convert_model(
            source, output, family.model_type, overwrite=True, trust_remote_code=config.trust_remote_code, progress=progress
        )
        from anyblock.checkpoint.atomic import write_json_atomic

        write_json_atomic(folder / "teacher.json", {"fingerprint": SubblockCheckpoint.open(output).fingerprint()})
    return SubblockCheckpoint.open(output), family


def _source_key(source: Path) -> str:
    return digest({path.name: file_digest(path) for path in sorted(source.iterdir()) if path.is_file()})


def _fingerprint(output: Path) -> str | None:
    try:
        return SubblockCheckpoint.open(output).fingerprint()
    except AnyBlockError:
        return None
