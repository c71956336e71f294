"""The candidate sources of a run."""

from __future__ import annotations

from anyblock.config.schema import RunConfig
from anyblock.contract.candidate_source import CandidateSource
from anyblock.family import ModelFamily


def run_sources(config: RunConfig, family: ModelFamily) -> dict[str, CandidateSource]:
    """Return the sources that a run uses, by name, with their settings."""
    found = {}
    for name, source in family.named("sources").items():
        made = source.of_run(config.section(f"pruning.{name}", source.settings), config.pruning)
        if made is not None:
            found[name] = made
    return found
