"""Run GGUF files in llama.cpp; needs nothing but llama-cpp-python, and is not imported by any test.

    python run_llama_cpp.py REQUEST.json ANSWER.npz

The request: `{"file", "prompt": ids, "new": greedy tokens, "texts": [texts to tokenize]}`. The answer: `logits`
[prompt, vocabulary], `greedy` [new], and `text_0` ... with the ids of each text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
wide = llama_cpp.GGML_TYPE_F32  # the key-value cache, which is F16 otherwise
model = llama_cpp.Llama(
    request["file"], n_ctx=128, logits_all=True, n_threads=1, type_k=wide, type_v=wide, flash_attn=False, verbose=False
)
answer = {}
prompt = request.get("prompt", [])
if prompt:
    model.eval(prompt)
    answer["logits"] = np.array(model.scores[: len(prompt)])
    greedy = []
    for place in range(len(prompt) - 1, len(prompt) - 1 + request["new"]):
        greedy.append(int(model.scores[place].argmax()))
        model.eval(greedy[-1:])
    answer["greedy"] = np.array(greedy)
for index, text in enumerate(request.get("texts", [])):
    answer[f"text_{index}"] = np.array(model.tokenize(text.encode(), add_bos=True, special=True))
np.savez(sys.argv[2], **answer)
