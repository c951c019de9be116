"""Text as it comes: streams that also keep what they end with.

A stream that is left tells the generator behind it to stop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from ragbot.engines import TextStream
from ragbot.types import Answer, Usage

T = TypeVar("T")


class Stream(Iterator[str], Generic[T]):
    """An iterator over text that also keeps what its generator returned."""

    def __init__(self, source: Generator[str, None, T]):
        self._source = source
        self.result: T | None = None

    def __next__(self) -> str:
        try:
            return next(self._source)
        except StopIteration as end:
            self.result = self.result or end.value  # asked once more, a generator returns None
            raise

    def close(self) -> None:
        """Stop now; the generator behind it is told to stop, too."""
        self._source.close()


class AnswerStream(Stream[Answer]):
    """An answer as it is proven, piece by piece; joined, the pieces are the answer's text."""

    @property
    def answer(self) -> Answer:
        """The whole answer; what has not been read yet is read first."""
        for _ in self:
            pass
        if self.result is None:
            raise RuntimeError("the stream was closed before its end")
        return self.result


class Written:
    """What the generator wrote for one question, and the tokens it took: read, written, and of
    those read how many were known before."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = (0, 0, 0)
        self.last = Usage()
        """What the last reply took, and its first tokens."""

    def kept(self, reply: TextStream) -> Iterator[str]:
        """The pieces of a reply, which are kept; a reply that is left is told to stop."""
        stream = Stream(reply)
        self.text += "\n" if self.text else ""
        try:
            for piece in stream:
                self.text += piece
                yield piece
        finally:
            stream.close()
        self.last = used = stream.result or Usage()
        self.tokens = (
            self.tokens[0] + used.prompt_tokens,
            self.tokens[1] + used.completion_tokens,
            self.tokens[2] + used.reused_tokens,
        )
