"""What every reader gives, and how bytes become text that can be shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ragbot.errors import CorpusError
from ragbot.text import fold
from ragbot.types import LeftOut


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph (level 0) or a heading of level 1 to 9, which also has a `title`."""

    text: str
    level: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What a file holds. `plain` says that nobody has sorted out its litter yet."""

    blocks: Sequence[Block]
    title: str = ""
    left_out: Sequence[LeftOut] = field(default_factory=tuple)
    plain: bool = False


_LONGEST_REASON = 200  # characters


@contextmanager
def mended_by(path: Path, what: str, remedy: str) -> Iterator[None]:
    """While a library reads a file: whatever it raises becomes a CorpusError, which says `what`
    the file is and how it is mended. OSError, CorpusError and MemoryError stay as they are."""
    try:
        yield
    except (CorpusError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make a library raise anything
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise CorpusError(f"{path} is {what} ({reason}): {remedy}.") from error


# --- encodings -------------------------------------------------------------------------------

BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
TERMINAL = tuple("。！？.!?…」』”\"')）:：;；")  # what a finished line ends with

_CANDIDATES = ("gb18030", "big5hkscs", "utf-16-le", "utf-16-be")
_SAMPLE = 20_000  # characters that decide about an encoding
_PLAUSIBLE = 0.7


def decode(data: bytes) -> str | None:
    """The text of a file in whatever encoding, or None when it is not text.

    Legacy Chinese encodings decode each other's bytes without complaint, into rare characters; so
    the reading with the most common ones is right.
    """
    for bom, encoding in BOMS:
        if data.startswith(bom):
            return _decoded(data, encoding)
    if (text := _decoded(data, "utf-8")) is not None and "\0" not in text:
        return text
    readings = [text for name in _CANDIDATES if (text := _decoded(data, name)) is not None]
    best = max(readings, key=_plausibility, default="")
    if best and _plausibility(best) >= _PLAUSIBLE:
        return best
    return None if b"\0" in data else _guessed(data)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _guessed(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return None if best is None else str(best)


def _plausibility(text: str) -> float:
    """The share of the characters beyond ASCII that ordinary texts use; controls count against."""
    odd = [char for char in text[:_SAMPLE] if not "\x20" <= char <= "\x7e" and char not in "\r\n\t"]
    return sum(map(_is_common, odd)) / len(odd) if odd else 1.0


@cache
def _is_common(char: str) -> bool:
    if unicodedata.category(char)[0] == "P" or "\uff01" <= char <= "\uff5e" or char == "\u3000":
        return True
    try:  # the first level of GB 2312: the 3,755 characters in common use, simplified
        code = fold(char).text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7


def read_text(path: Path) -> str:
    """A text file's content, cleaned of what no reader sees. Raises CorpusError, OSError."""
    text = decode(path.read_bytes())
    if text is None:
        raise CorpusError(f"{path} is not a text file: give a document in one of the known types.")
    return clean(text)


def clean(text: str) -> str:
    """The text with plain newlines and without control, zero-width and half characters."""
    text = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff]", "", text)
