"""Tell by its bytes whether a file is UTF-8 text; what nothing here reads is refused with a command that makes text of it."""

from __future__ import annotations

import io
import pickletools
import re
import shlex
import unicodedata
import zipfile
from pathlib import Path
from typing import Final

from anyblock.errors import InputError

_EXPECTED: Final = "UTF-8 text, JSON, a table, or one of these compressed"
_HEAD: Final = 1 << 16
_FEW: Final = 4
_MOST_ODD: Final = 0.01
_LEAST_COMMON: Final = 0.02
_COMMON: Final = " \n\u3000,.،。，、।"
"""Some of these stand in every text of some length; an encoding in which they do not is the wrong one."""
_ODD: Final = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd-\uffff]")
"""What text has hardly ever: control characters other than white space, backspace, escape and next line, and U+FFFD."""
_ODD_BYTES: Final = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")

_ORC: Final = (
    "make JSON lines of it, with the name of its column of text for 'text' and with pyarrow installed, with: "
    'python -c "import json,sys,pyarrow.orc as o; '
    "[print(json.dumps({'text': t})) for t in o.read_table(sys.argv[1])['text'].to_pylist() if t]\" @FILE > @LINES"
)
_SQL: Final = (
    "make JSON lines of it, with the names of its column and its table of text for text and documents, with: "
    "python -c \"import json,sqlite3,sys; [print(json.dumps({'text': t})) "
    "for t, in sqlite3.connect(sys.argv[1]).execute('select text from documents') if t]\" @FILE > @LINES"
)
_WORD: Final = (
    'take the text out of it with: python -c "import html,re,sys,zipfile; '
    "t = zipfile.ZipFile(sys.argv[1]).read('word/document.xml').decode(); "
    "print(html.unescape(re.sub('<[^>]*>', '', t.replace('</w:p>', '\\n'))))\" @FILE > @NEW"
)
_SAVE_AS: Final = "open it in a program that it belongs to and save it as plain text (UTF-8)"
_TENSORS: Final = "give a text file here; the model is an argument of its own"
_PICKLE: Final = "write its text as UTF-8 where it was made; to open a pickle runs code that is in it"

_MAGIC: Final[tuple[tuple[bytes, str, str], ...]] = (
    (rb"\x1f\x9d", "compressed with compress", "unpack it with: gzip -dc < @FILE > @PLAIN"),
    (rb"[\x50-\x5f]\x2a\x4d\x18", "compressed with zstd", "unpack it with: zstd -dc < @FILE > @PLAIN"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4", "unpack it with: lz4 -dc < @FILE > @PLAIN"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it with: 7z e -so @FILE > @NEW"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it with: unrar p -inul @FILE > @NEW"),
    (rb".{257}ustar[\x00 ]", "a tar archive", "unpack it with: tar -xOf @FILE > @NEW"),
    (rb"PARE.*PARE\Z", "an encrypted Parquet table", "decrypt it where its key is"),
    (rb"PAR1|FEA1", "a Parquet or Arrow table that breaks off", "get the whole file"),
    (rb"ORC.*ORC.\Z", "an ORC table", _ORC),
    (rb"Obj\x01", "an Avro file", "write its text as JSON lines where it was made"),
    (rb"\x89HDF\r\n\x1a\n|\x93NUMPY", "a file of numbers (HDF5 or NumPy)", "write its text as UTF-8 where it was made"),
    (rb"SQLite format 3\x00", "an SQLite database", _SQL),
    (rb"GGUF[\x01-\x0f]\x00", "a GGUF file (weights)", _TENSORS),
    (rb"\x80[\x02-\x05]", "a Python pickle", _PICKLE),
    (rb"\s{,16}%PDF-\d", "a PDF", "take the text out of it with: pdftotext @FILE @NEW"),
    (rb"\s{,8}\{\\rtf", "a document in the rich text format", _SAVE_AS),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office", _SAVE_AS),
    (rb"%!PS", "a PostScript file", "take the text out of it with: ps2ascii @FILE @NEW"),
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer, not the file itself", "get the file with: git lfs pull"),
)  # fmt: skip
"""What the first bytes of a file match, what it is then, and what to do."""
_PATTERNS: Final = tuple((re.compile(magic, re.DOTALL), what, advice) for magic, what, advice in _MAGIC)
_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip


def decoded_text(data: bytes, path: Path) -> str:
    """Return the characters of a file of UTF-8 text, without a byte order mark.

    Args:
        data: all bytes of the file.
        path: names it, also in the command of the error.

    Raises:
        InputError: the bytes are something else; the message says what, and how to make text of it.
    """
    what, advice = _format(data)
    if what:
        raise refusal(path, f"is {what}", advice)
    try:
        text, error = data.decode("utf-8-sig"), None
    except UnicodeDecodeError as found:
        text, error = "", found
    if error is not None or "\0" in text:
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _unmarked(data)
        if encoding:
            raise refusal(path, f"is text in {encoding}", f"convert it with: iconv -f {encoding} -t UTF-8 @FILE > @NEW")
    if error is not None:
        raise _not_utf8(data, path, error) from error
    odd = sum(1 for _ in _ODD.finditer(text))
    if odd > _FEW + _MOST_ODD * len(text):
        what = f"is not text: {odd:,} of its {len(text):,} characters are control or replacement characters"
        raise refusal(path, what, "give the file that it was made from, or convert that one anew")
    if "\0" in text:
        raise refusal(
            path, f"has a NUL at character {text.index(chr(0))}", "remove them with: tr -d '\\000' < @FILE > @NEW"
        )
    return text


def refusal(path: Path, what: str, advice: str) -> InputError:
    """Return the error for a file that is not text.

    Args:
        path: the file.
        what: what it is, after its name.
        advice: what to do; see `command`.
    """
    return InputError(f"{path} {what}", expected=_EXPECTED, hint=command(advice, path))


def command(advice: str, path: Path) -> str:
    """Put a file's name for `@FILE`, quoted for a shell, and names that no file has yet for what the command writes.

    These are `@NEW` (with `.txt`), `@LINES` (with `.jsonl`) and `@PLAIN` (without the suffix of a compressed file).
    """
    plain = path.with_suffix("" if path.suffix.lower() in _COMPRESSED else ".txt")
    names = {"NEW": path.with_suffix(".txt"), "LINES": path.with_suffix(".jsonl"), "PLAIN": plain}
    filled = {"FILE": path} | {name: _free(target) for name, target in names.items()}
    return re.sub("@(FILE|NEW|LINES|PLAIN)", lambda found: shlex.quote(str(filled[found.group(1)])), advice)


_COMPRESSED: Final = {".gz", ".zst", ".xz", ".bz2", ".lz4", ".z"}


def _free(path: Path) -> Path:
    """Return a name like this one that no file has."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(2, 100))
    return next((name for name in (path, *numbered) if not name.exists()), path)


def _format(data: bytes) -> tuple[str, str]:
    """Return what a file is by its first bytes, and what to do about it; empty for what may be text."""
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data)
    for pattern, what, advice in _PATTERNS:
        if pattern.match(data):
            return what, advice
    header = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and 2 <= header <= len(data) - 8:
        return "a safetensors file (weights)", _TENSORS
    if b"\x1b$" in data[:_HEAD] and re.search(rb"\x1b\$[@B][!-~]", data[:_HEAD]):
        return "text in ISO-2022-JP", "convert it with: iconv -f ISO-2022-JP -t UTF-8 @FILE > @NEW"
    return ("a Python pickle", _PICKLE) if _is_old_pickle(data) else ("", "")


def _zip(data: bytes) -> tuple[str, str]:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        names = []
    if "word/document.xml" in names:
        return "a Word document", _WORD
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", _PICKLE
    if any(name in ("[Content_Types].xml", "mimetype") for name in names):
        return "a document or a book (a zip archive)", _SAVE_AS
    return "a zip archive", "unpack it with: unzip -p @FILE > @NEW"


def _is_old_pickle(data: bytes) -> bool:
    """Return whether this is a pickle of protocol 0 or 1, which is written in printable characters."""
    if data[:1] not in (b"(", b"]", b"}", b"c") or not data.endswith(b"."):
        return False
    try:
        *_, (_, _, end) = pickletools.genops(data)
    except Exception:  # noqa: BLE001 - whatever its parser makes of text
        return False
    return end == len(data) - 1


def _unmarked(data: bytes) -> str | None:
    """Return the wide encoding that bytes which are not UTF-8 make text in, without a byte order mark; None if in none."""
    best, most = None, _LEAST_COMMON
    for encoding, width in (("UTF-32LE", 4), ("UTF-32BE", 4), ("UTF-16LE", 2), ("UTF-16BE", 2)):
        head = data[: min(len(data), _HEAD) // width * width]
        text = head.decode(encoding, errors="replace")
        if not text or sum(map(_is_odd, text)) > _MOST_ODD * len(text):
            continue
        common = sum(map(text.count, _COMMON)) / len(text)
        if common >= most:
            best, most = encoding, common
    return best


def _is_odd(character: str) -> bool:
    return bool(_ODD.match(character)) or unicodedata.category(character) in ("Cn", "Co", "Cs")


def _not_utf8(data: bytes, path: Path, error: UnicodeDecodeError) -> InputError:
    what = f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
    head = data[:_HEAD]
    if len(_ODD_BYTES.findall(head)) > _MOST_ODD * len(head):
        return refusal(path, f"is not text ({what.removeprefix('is ')})", "give the text itself")
    bad = data.decode(errors="replace").count("\ufffd")
    good = sum(1 for character in data.decode(errors="ignore") if character > "\x7f")
    if good > 10 * bad or (good and error.reason == "unexpected end of data"):
        advice = (
            f'drop what is not ({bad} places) with: python -c "import sys; sys.stdout.buffer.write('
            "open(sys.argv[1], 'rb').read().decode(errors='ignore').encode())\" @FILE > @NEW"
        )
        return refusal(path, what, advice)
    high = sum(1 for byte in head if byte > 0x7F)
    if high < 0.15 * len(head):
        advice = (
            "convert it from the encoding that it was saved in, for the languages of Western Europe most often with: "
            "iconv -f WINDOWS-1252 -t UTF-8 @FILE > @NEW"
        )
        return refusal(path, what, advice)
    advice = (
        "convert it, with the encoding that it was saved in (SHIFT_JIS, GB18030, BIG5, EUC-KR, WINDOWS-1251, KOI8-R ...) "
        "for ENCODING, with: "
        "iconv -f ENCODING -t UTF-8 @FILE > @NEW"
    )
    return refusal(path, what, advice)
