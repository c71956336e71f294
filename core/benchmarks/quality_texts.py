"""The texts of `quality.py`: kinds of text that children are calibrated on in turn, and kinds that they never saw."""

from __future__ import annotations

import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SHARED: Final = ROOT.parent / "shared" / "text"
_SEEN: Final = 0.7  # the first part of each text of the mixture is calibrated on, the rest evaluated on
_PIECE: Final = 2000
_CODE: Final = 1_000_000


@dataclass(frozen=True)
class Kind:
    """One kind of text.

    Attributes:
        name: for the table.
        seen: what may be calibrated on; empty of a kind that nothing is calibrated on.
        unseen: what children are evaluated on.
    """

    name: str
    seen: str
    unseen: str


def kinds() -> list[Kind]:
    """Return the kinds of text that are at hand: those of the mixture, then those that nothing is calibrated on.

    Code from Python's standard library and the demonstration's text are always there, the others where the reference material
    lies next to the repository.
    """
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    code = "\n\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in modules)[:_CODE]
    found = [_split("code", code)]
    if SHARED.is_dir():
        found = [_split("encyclopedia", _read("wikitext2-valid")), _split("dialogues", _read("dialogues")), *found]
        return [*found, Kind("plays", "", _read("tinyshakespeare")), Kind("word problems", "", _read("word-problems"))]
    folder = ROOT / "demo" / "text"
    seen, unseen = ((folder / f"{part}.txt").read_text(encoding="utf-8") for part in ("calibration", "evaluation"))
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    return [Kind("encyclopedia", seen, unseen), *found, Kind("licence", "", licence)]


def mixture(found: list[Kind], seed: int) -> str:
    """Return pieces of every kind that may be calibrated on, in turn, in an order that the seed decides."""
    generator = random.Random(seed)
    parts = [_pieces(kind.seen, generator) for kind in found if kind.seen]
    return "\n\n".join(piece for turn in zip(*parts, strict=False) for piece in turn)


def _pieces(text: str, generator: random.Random) -> list[str]:
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    generator.shuffle(pieces)
    return pieces


def _split(name: str, text: str) -> Kind:
    place = text.find("\n", int(_SEEN * len(text)))
    return Kind(name, text[:place], text[place:])


def _read(name: str) -> str:
    return (SHARED / f"{name}.txt").read_text(encoding="utf-8")
