"""Hugging Face: where downloads are kept, whether that place can be used, and whether the network is switched off."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from anyblock.doctor.finding import Examined, pip


def examine_hub() -> Examined:
    """Look at the cache folder and the offline switches, as `huggingface_hub` itself reads them."""
    section = Examined("Hugging Face")
    try:
        from huggingface_hub import constants
    except ImportError as error:
        section.wrong(
            f"huggingface_hub cannot be imported: {error}", pip("install", "--force-reinstall", "huggingface_hub")
        )
        return section
    cache = Path(constants.HF_HUB_CACHE)
    section.facts["cache"] = str(cache)
    section.facts["cached_models"] = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    section.facts["offline"] = bool(constants.HF_HUB_OFFLINE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    section.facts["disk_free_cache"] = shutil.disk_usage(existing).free
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        section.wrong(f"the cache {cache} cannot be written to", 'export HF_HOME="$HOME/.cache/huggingface"')
    return section
