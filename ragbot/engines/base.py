"""What every generator offers, and the one loop that carries text from a worker to its reader.

A generator is read by whoever asked, on any thread; the work is done by a thread of its own, so
that leaving (closing the stream, Ctrl-C, a set `cancel`) never waits for the model's next word.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from ragbot.types import Message, Usage

TextStream = Generator[str, None, Usage]
"""Pieces of text as they are written; the generator's return value is the tokens it took."""

_POLL_SECONDS = 0.05


class Engine(Protocol):
    """A chat model. Decoding is greedy: the same messages give the same text."""

    name: str

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        """The reply, piece by piece. Raises ModelError; ends early once `cancel` is set.

        `form` is a GBNF grammar that the reply follows where the engine can hold a model to one.
        """
        ...


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as chat templates and servers take them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def drain(
    work: Callable[[Callable[[str], None], threading.Event], Usage],
    cancel: threading.Event | None,
) -> TextStream:
    """Run `work(emit, stop)` in a thread and yield what it emits; what it raises is raised here.

    `stop` is set as soon as the reader leaves or `cancel` is set; `work` has to look at it.
    """
    pieces: queue.SimpleQueue[str | Usage | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            pieces.put(work(pieces.put, stop))
        except BaseException as error:  # handed to the reader, who raises it
            pieces.put(error)

    threading.Thread(target=run, daemon=True, name="ragbot-generate").start()
    try:
        while not (cancel and cancel.is_set()):
            try:
                piece = pieces.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(piece, Usage):
                return piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        return Usage()
    finally:
        stop.set()
