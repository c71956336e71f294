"""Run GGUF files in llama.cpp, in a process of its own: a file that llama.cpp aborts at takes nothing else along.

    python run_llama_cpp.py REQUEST.json ANSWER.npz

The request: `{"library", "files", "prompt": ids, "new": greedy tokens, "texts": [texts to tokenize]}`. The answer, for the
first file: `logits_0` [prompt, vocabulary], `greedy_0` [new], `text_0_0` ... with the ids of each text, and `bytes_0_0` ... with
what these ids stand for, control tokens left out.

llama.h passes its parameters by value, in structures that grow from release to release. They are kept as opaque bytes here,
larger than any release's: both sides then agree, since the caller copies them whole. The few fields that are changed are
found by their defaults, which are checked.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from pathlib import Path

import numpy as np

F32, F16 = 0, 1
N_CTX, N_BATCH, N_UBATCH, FLASH_ATTN, TYPE_K, TYPE_V = 0, 4, 8, 52, 104, 108


class Parameters(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * 1024),)

    def change(self, place: int, default: int | None, value: int) -> None:
        (found,) = struct.unpack_from("<i", self.bytes, place)
        assert default in (None, found), (
            f"llama_context_params has {found} at {place}, not {default}: it has other fields"
        )
        struct.pack_into("<i", self.bytes, place, value)


class Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
    )  # fmt: skip


def declared(path: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(path)
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    for name, result, *arguments in (
        ("llama_model_default_params", Parameters),
        ("llama_context_default_params", Parameters),
        ("llama_model_load_from_file", pointer, ctypes.c_char_p, Parameters),
        ("llama_init_from_model", pointer, pointer, Parameters),
        ("llama_set_n_threads", None, pointer, number, number),
        ("llama_batch_init", Batch, number, number, number),
        ("llama_decode", number, pointer, Batch),
        ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), pointer, number),
        ("llama_model_get_vocab", pointer, pointer),
        ("llama_vocab_n_tokens", number, pointer),
        ("llama_tokenize", number, pointer, ctypes.c_char_p, number, pointer, number, ctypes.c_bool, ctypes.c_bool),
        ("llama_token_to_piece", number, pointer, number, ctypes.c_char_p, number, number, ctypes.c_bool),
    ):
        getattr(lib, name).restype, getattr(lib, name).argtypes = result, arguments
    return lib


class Runner:
    """A loaded file. The key-value cache is F32, which llama.cpp would make F16, and nothing is computed in flash attention."""

    def __init__(self, library: str, file: str) -> None:
        self.lib = declared(library)
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(file.encode(), self.lib.llama_model_default_params())
        if not self.model:
            sys.exit("llama.cpp does not load the file")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.context, self.past = None, 0

    def start(self) -> None:
        options = self.lib.llama_context_default_params()
        for place, default, value in (
            *((N_CTX, 512, 256), (N_BATCH, 2048, 256), (N_UBATCH, 512, 256)),
            *((FLASH_ATTN, -1, 0), (TYPE_K, F16, F32), (TYPE_V, F16, F32)),
        ):
            options.change(place, default, value)
        self.context = self.lib.llama_init_from_model(self.model, options)
        if not self.context:
            sys.exit("llama.cpp makes no context")
        self.lib.llama_set_n_threads(self.context, 1, 1)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Return the logits after each of these tokens, which follow those of earlier calls, [tokens, vocabulary]."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, self.past + index
            batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
        if self.lib.llama_decode(self.context, batch):
            sys.exit("llama.cpp does not compute")
        self.past += len(tokens)
        size = self.lib.llama_vocab_n_tokens(self.vocab)
        rows = [self.lib.llama_get_logits_ith(self.context, index) for index in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (size,)).copy() for row in rows])

    def tokens(self, text: str) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])

    def written(self, tokens: list[int]) -> bytes:
        """Return what the tokens stand for."""
        buffer, result = ctypes.create_string_buffer(1024), b""
        for token in tokens:
            count = self.lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
            result += buffer.raw[:count]
        return result


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = {}
    for place, file in enumerate(request["files"]):
        runner = Runner(request["library"], file)
        if prompt := request.get("prompt"):
            runner.start()
            answer[f"logits_{place}"] = logits = runner.logits(prompt)
            greedy, last = [], logits[-1]
            for _ in range(request.get("new", 0)):
                greedy.append(int(last.argmax()))
                last = runner.logits(greedy[-1:])[0]
            answer[f"greedy_{place}"] = np.array(greedy)
        for index, text in enumerate(request.get("texts", [])):
            tokens = runner.tokens(text)
            answer[f"text_{place}_{index}"] = np.array(tokens, dtype=np.int64)
            answer[f"bytes_{place}_{index}"] = np.frombuffer(runner.written(tokens), dtype=np.uint8)
    np.savez(sys.argv[2], **answer)


main()
