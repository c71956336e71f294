"""BPE of sentencepiece, whose spaces are letters and whose unknown characters are bytes, as llama.cpp's `llama` has it.

llama.cpp joins two neighbours wherever the vocabulary has both together, that of the highest score first and the leftmost among
equals. transformers joins the pairs in a list, in its order. The two agree where the list has every such pair and
all pairs of a token stand together in it, which is how such lists are made from a `tokenizer.model`.
"""

from __future__ import annotations

from typing import Any, Final

BYTE_TOKENS: Final = frozenset(f"<0x{byte:02X}>" for byte in range(256))
SPACE: Final = "▁"
_PREPEND: Final = {"type": "Prepend", "prepend": SPACE}
_REPLACE: Final = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_IDLE: Final = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
"""Gemma's pre-tokenizer, which finds nothing: its normalizer has replaced all spaces."""


class Pieces:
    """What llama.cpp has to know of a tokenizer with byte fallback.

    Attributes:
        scores: of every token that pairs are joined to, the earlier the higher.
        space: whether a space is put in front of a text.
        notes, obstacles: see `anyblock_gguf.tokenizer.Expressed`.
    """

    def __init__(self, data: Any) -> None:
        model = data["model"]
        self.notes: list[str] = []
        self.obstacles: list[str] = []
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        order = dict.fromkeys(left + right for left, right in pairs)
        self.scores = {token: -1.0 - rank for rank, token in enumerate(order)}
        self.space = self._space(data)
        if missing := BYTE_TOKENS - model["vocab"].keys():
            self.obstacles.append(f"its tokenizer lacks {len(missing)} tokens for bytes, such as {min(missing)}")
        if model.get("ignore_merges"):
            self.obstacles.append("its tokenizer has ignore_merges=True, which llama.cpp's llama does not have")
        self._joined(data, {*pairs})
        self._ordered(pairs)

    def _space(self, data: Any) -> bool:
        """Return whether a space is put in front of a text; notes where llama.cpp does so at other places."""
        normalizer, splitter = data.get("normalizer"), data.get("pre_tokenizer")
        steps = normalizer["normalizers"] if (normalizer or {}).get("type") == "Sequence" else [normalizer]
        if steps in ([_PREPEND, _REPLACE], [_REPLACE]) and splitter in (None, _IDLE):
            front = len(steps) == 2
            plain = [token["content"] for token in data.get("added_tokens", []) if token["normalized"]]
            if front and plain:
                self.obstacles.append(f"its tokenizer looks for {plain[0]!r} in text to which spaces were added")
            return front
        if normalizer or (splitter or {}).get("type") != "Metaspace" or splitter["replacement"] != SPACE:
            kinds = [step["type"] for step in [*steps, splitter] if step]
            self.obstacles.append(f"its tokenizer prepares text in a way that llama.cpp does not ({', '.join(kinds)})")
            return False
        scheme = splitter["prepend_scheme"]
        if splitter.get("split", True) and (inner := [token for token in self.scores if SPACE in token[1:]]):
            self.obstacles.append(f"its tokenizer splits text at spaces, and {inner[0]!r} has some within")
        if scheme != "never":
            where = ", and after special tokens, too" if scheme == "first" else ""
            self.notes.append(
                f"a space is put in front of text that begins with one{where}, where the child's tokenizer does not do so"
            )
        return bool(scheme != "never")

    def _joined(self, data: Any, pairs: set[tuple[str, ...]]) -> None:
        """Look whether each two neighbours that llama.cpp would join are in the list."""
        vocabulary = data["model"]["vocab"]
        found = {token["content"] for token in data.get("added_tokens", []) if SPACE not in token["content"]}
        more = []
        for token in vocabulary.keys() - found - BYTE_TOKENS:
            for place in range(1, len(token)):
                left, right = token[:place], token[place:]
                both = all(part in vocabulary or len(part) == 1 for part in (left, right))
                if both and (left, right) not in pairs:
                    more.append((left, right))
        if more:
            self.obstacles.append(
                f"its tokenizer does not join {min(more)[0]!r} and {min(more)[1]!r}, which llama.cpp would do since their sum is "
                f"in the vocabulary, nor {len(more) - 1} other pairs"
            )

    def _ordered(self, pairs: list[tuple[str, ...]]) -> None:
        """Look whether the pairs of each token stand together."""
        last, ended = "", set[str]()
        for left, right in pairs:
            token = left + right
            if token != last:
                if token in ended:
                    self.notes.append(
                        f"pairs that make the same token are joined at the same rank, and for some, such as {token!r}, the "
                        "child's tokenizer has several"
                    )
                    return
                ended.add(last)
                last = token
