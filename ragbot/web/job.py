"""What a visitor is told while he waits, and the box that it is put into.

A reader lives on an event loop, any loop; what his question gives is put into his box and never
waits for him, so that a slow one holds up nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ragbot.types import Answer, Step


@dataclass(frozen=True, slots=True)
class Waiting:
    """Others come first: 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class Working:
    """What is being done for the question."""

    step: Step


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer; joined, the pieces are its text."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole answer, the last of all events."""

    answer: Answer


Event = Waiting | Working | Said | Finished
Tell = Callable[[Event], None]


class Job:
    """A piece of work, and the box in which its reader finds what it gives."""

    def __init__(
        self,
        visitor: str,
        run: Callable[[Tell, threading.Event], None],
        limit: float,
        *,
        long: bool = False,
    ):
        self.visitor, self.run, self.limit, self.long = visitor, run, limit, long
        self.cancel = threading.Event()
        self.thread: int | None = None  # that it runs on, from then on
        self._position = self._told = 0
        self._box: deque[Event | BaseException | None] = deque()

    def attend(self, patience: float, expire: Callable[[Job], None]) -> None:
        """Its reader comes, on the running loop."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._timer = self._loop.call_later(patience, expire, self)

    def unattended(self) -> None:
        """Its reader has gone."""
        self._timer.cancel()

    async def next_event(self) -> Event | None:
        """What came next: its place while it waits, then all that was put. Raises what was."""
        while True:
            if self._box:
                found = self._box.popleft()
                if isinstance(found, BaseException):
                    raise found
                return found
            if self.thread is None and self._position != self._told:
                self._told = self._position
                return Waiting(self._told)
            await self._news.wait()
            self._news.clear()

    def put(self, what: Event | BaseException | None) -> None:
        """Into the box, from any thread; nothing comes after an error or None, the end."""
        self._box.append(what)
        self._call(self._news.set)

    def moved(self, position: int) -> None:
        """It has another place in the queue."""
        if position != self._position:
            self._position = position
            self._call(self._news.set)

    def begin(self, expire: Callable[[Job], None]) -> None:
        """It is at work, on this thread; only so much time is left to it."""
        self.thread = threading.get_ident()
        self._call(self._time, expire)

    def _time(self, expire: Callable[[Job], None]) -> None:
        self._timer.cancel()
        if not self.cancel.is_set():
            self._timer = self._loop.call_later(self.limit, expire, self)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed, nobody reads any more
            self.cancel.set()
