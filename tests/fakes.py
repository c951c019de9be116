"""Small real objects that stand where models stand: an encoder of hashed characters, an engine
that says what it is given to say."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ragbot.engines.base import TextStream
from ragbot.text import fold
from ragbot.types import Message, Usage


class FakeEncoder:
    """Texts that share pairs of characters are near each other. Counts what it encodes."""

    name = "fake"
    max_tokens = 200

    def __init__(self, fingerprint: str = "fake-1", dimension: int = 512):
        self.fingerprint = fingerprint
        self.dimension = dimension
        self.encoded: list[str] = []

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(texts)

    def passages(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        self.encoded += texts
        if progress and texts:
            progress(len(texts), len(texts))
        return self._encode(texts)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            plain = fold(text).text
            for pair in [plain[i : i + 2] for i in range(max(1, len(plain) - 1))]:
                digest = hashlib.sha256(pair.encode()).digest()
                vectors[row, int.from_bytes(digest[2:4], "big") % self.dimension] += (
                    1 if digest[1] % 2 else 0.5
                )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        result: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-9)).astype(np.float32)
        return result


class FakeEngine:
    """Answers with the replies that were enqueued, a few characters a piece; keeps the prompts."""

    name = "fake"

    def __init__(self) -> None:
        self.replies: list[str | Exception] = []
        self.prompts: list[Sequence[Message]] = []
        self.stopped_early = False

    def enqueue(self, *replies: str | Exception) -> FakeEngine:
        self.replies += replies
        return self

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int, cancel: threading.Event | None = None
    ) -> TextStream:
        self.prompts.append(messages)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        finished = False
        try:
            for at in range(0, len(reply), 3):
                if cancel and cancel.is_set():
                    break
                yield reply[at : at + 3]
            finished = not (cancel and cancel.is_set())
        finally:
            self.stopped_early = not finished
        return Usage(sum(len(m.content) for m in messages), len(reply))
