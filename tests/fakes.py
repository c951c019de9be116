"""Small real objects that stand where models stand: an encoder of hashed characters, an engine
that says what it is given to say."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from ragbot.encoder import Encoder
from ragbot.engines.base import TextStream
from ragbot.prompts import ANSWER, NONE, SENTENCE, Written, written
from ragbot.text import detect_language, fold
from ragbot.types import Language, Message, Token, Usage


class FakeEncoder(Encoder):
    """Texts that share pairs of characters are near each other, and none is far from another, as e5
    has it. Counts what it encodes."""

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
                place = int.from_bytes(digest[2:4], "big") % (self.dimension - 1)
                vectors[row, 1 + place] += 1 if digest[1] % 2 else 0.5
        vectors *= np.sqrt(1 - FARTHEST) / np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[:, 0] = np.sqrt(FARTHEST)
        return vectors


FARTHEST = 0.7  # the cosine of two texts that have nothing in common


@dataclass(frozen=True)
class Reply:
    """What a model writes, with its tokens and what else was likely in their place."""

    text: str
    tokens: tuple[Token, ...] = ()


def reading(sentence: str, answer: str, *, none: float | None = None) -> Reply:
    """A reading as the engine's grammar has it, in the sentence's language.

    `sentence` may be several on a line each. `none` is the log probability of saying that there is
    no answer in its place, where the engine tells any.
    """
    said: Written = written(detect_language(sentence + answer))
    copied = "\n".join(SENTENCE[said] + line for line in sentence.split("\n"))
    text = f"{copied}\n{ANSWER[said]}{answer}"
    if none is None:
        return Reply(text)
    likely = {answer[:1]: -0.1} | {NONE[said]: none}
    label = Token(f"{copied}\n{ANSWER[said]}", {})
    return Reply(text, (label, Token(answer[:1], likely), Token(answer[1:], {answer[1:]: -0.5})))


def nothing(language: Language = "zh-Hant", *, none: float | None = None) -> Reply:
    """The reading of a text that holds no answer."""
    word = NONE[written(language)]
    return reading(word, word, none=none)


def hasty() -> SimpleNamespace:
    """The module `time`, with short sleeps: for a library that waits half a second between two looks
    at what is done at once."""
    return SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(seconds / 50)})


class FakeEngine:
    """Answers with the replies that were enqueued, a few characters a piece; keeps the prompts.

    In the course of one question replies are taken in this order: the follow-up as a question that
    stands alone, the question's translation, a reading, a retelling of each sentence.
    """

    name = "fake"

    def __init__(self) -> None:
        self.replies: list[str | Reply | Exception] = []
        self.prompts: list[Sequence[Message]] = []
        self.forms: list[str] = []
        self.stopped_early = False

    def enqueue(self, *replies: str | Reply | Exception) -> FakeEngine:
        self.replies += replies
        return self

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        self.prompts.append(messages)
        self.forms.append(form)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        reply = Reply(reply) if isinstance(reply, str) else reply
        finished = False
        try:
            for at in range(0, len(reply.text), 3):
                if cancel and cancel.is_set():
                    break
                yield reply.text[at : at + 3]
            finished = not (cancel and cancel.is_set())
        finally:
            self.stopped_early = not finished
        return Usage(sum(len(m.content) for m in messages), len(reply.text), tokens=reply.tokens)
