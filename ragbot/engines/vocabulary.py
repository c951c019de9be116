"""What llama.cpp does not survive in a GGUF file: a token that is in the vocabulary twice.

Of anything else that is wrong with a file it says so itself; so what cannot be read here is passed
over. The form is that of github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MOST = 1 << 26  # bytes that are looked through: a header with 260,000 tokens has 12 million
_START = len("GGUF") + 4  # behind the version
_TOKENS = b"tokenizer.ggml.tokens"
_TEXT, _ARRAY = 8, 9
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}


def repeated_token(path: Path) -> str | None:
    """A token that the file's vocabulary has twice, if there is one. Raises OSError."""
    with path.open("rb") as file:
        header = _Header(file.read(_MOST))
    try:
        seen: set[bytes] = set()
        for token in header.tokens():
            if token in seen:
                return token.decode("utf-8", "replace")
            if token:  # of those that are empty there may be many
                seen.add(token)
    except (struct.error, LookupError, OverflowError):
        pass
    return None


class _Header:
    """The beginning of a GGUF file, read from front to end."""

    def __init__(self, data: bytes):
        self._data, self._at = data, _START

    def tokens(self) -> list[bytes]:
        """The vocabulary; none when the file has no such entry."""
        _tensors, entries = self._take("QQ")
        for _ in range(entries):
            key, (kind,) = self._text(), self._take("I")
            if kind == _ARRAY:
                kind, count = self._take("IQ")
                if key == _TOKENS and kind == _TEXT:
                    return [self._text() for _ in range(count)]
                self._skip(kind, count)
            else:
                self._skip(kind, 1)
        return []

    def _skip(self, kind: int, count: int) -> None:
        if kind == _TEXT:
            for _ in range(count):
                self._text()
        else:
            self._at += count * struct.calcsize("<" + _NUMBERS[kind])

    def _text(self) -> bytes:
        (length,) = self._take("Q")
        self._at += length
        return self._data[self._at - length : self._at]

    def _take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values
