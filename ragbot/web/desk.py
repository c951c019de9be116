"""The desk in front of the generator: who is next, and what each one is told meanwhile.

Questions, and other heavy work, are done one at a time, or so many at a time as there are servers
for, on threads that live only while there is something to do. Visitors take turns, each one's
questions in order. How an answer comes about is the bot's business.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeVar

from ragbot.bot import RagBot
from ragbot.errors import RagbotError
from ragbot.fence import checked
from ragbot.types import Message
from ragbot.web.job import Event, Finished, Job, Said, Tell, Waiting, Working

__all__ = [
    "Bounds",
    "BusyError",
    "Desk",
    "Event",
    "Finished",
    "LateError",
    "LeftError",
    "Said",
    "Waiting",
    "Working",
]

T = TypeVar("T")


class BusyError(RagbotError):
    """No place in the queue: it is full, or the visitor has as many places as one may have."""

    def __init__(self, reason: Literal["full", "yours"]):
        self.reason = reason
        super().__init__(
            "Too many people are waiting: ask again in a minute."
            if reason == "full"
            else "You have questions waiting already: wait for their answers, or stop one."
        )


class LateError(RagbotError):
    """Time is up, in the queue or at work."""

    def __init__(self, reason: Literal["queue", "work"], seconds: float):
        self.reason = reason
        super().__init__(
            f"It was not your turn within {seconds:.0f} seconds: ask again later."
            if reason == "queue"
            else f"There was no end of it within {seconds:.0f} seconds: ask for less at once."
        )


class LeftError(RagbotError):
    """The visitor left while work was done for him."""

    def __init__(self) -> None:
        super().__init__("The work was stopped, since its visitor left: begin it anew.")


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most `room` wait, `per_visitor` of them (what is at work counts, too) for one visitor, and
    `at_once` are at work; after `patience` seconds in the queue or `limit` at work a question is
    given up."""

    room: int = 64
    per_visitor: int = 2
    patience: float = 300.0
    limit: float = 180.0
    at_once: int = 1


USUAL = Bounds()


class Desk:
    """Lets questions to `bot` in, within bounds; may be used from several threads and loops."""

    def __init__(self, bot: RagBot, bounds: Bounds = USUAL):
        self._bot, self._bounds = bot, bounds
        self._lock = threading.Lock()
        self._queues: OrderedDict[str, deque[Job]] = OrderedDict()  # by visitor, in turn
        self._line: tuple[Job, ...] = ()  # all who wait, in the order in which they come next
        self._working: list[Job] = []  # of one thread the last one runs, others gave way to it
        self._threads = 0

    @property
    def waiting(self) -> int:
        """How many wait, those at work not counted."""
        return len(self._line)

    @property
    def at_work(self) -> int:
        """How many are at work."""
        return len(self._working)

    @property
    def running(self) -> bool:
        """Whether something is at work."""
        return bool(self._working)

    def ask(
        self,
        question: str,
        *,
        visitor: str,
        history: Sequence[Message] = (),
        bot: RagBot | None = None,
    ) -> AsyncGenerator[Event, None]:
        """What becomes of a question, as it happens; the last event is Finished.

        It has its place in the queue from the first event asked for until it is left: closing or
        cancelling the iterator takes it out, or stops it, at once. Raises ConfigError for a bad
        question here, and while it is read BusyError, LateError, ModelError, or whatever else the
        bot raises. Ends without Finished when `leave` is called for its visitor.
        """
        question, told, chosen = checked(question), tuple(history), bot or self._bot

        def answer(tell: Tell, cancel: threading.Event) -> None:
            stream = chosen.stream(
                question,
                history=told,
                cancel=cancel,
                watch=lambda step: tell(Working(step)),
            )
            for piece in stream:
                tell(Said(piece))
            tell(Finished(stream.answer))

        return self._events(Job(visitor, answer, self._bounds.limit))

    async def work(
        self, visitor: str, job: Callable[[threading.Event], T], *, limit: float = 900.0
    ) -> T:
        """What a long job gives, done in the same turns, on the same threads.

        The job has to look at the event it is given, set when the visitor leaves or time is up, and
        to call `give_way` now and then. Raises BusyError, LateError, LeftError, and what it raises.
        """
        given: list[T] = []

        def run(tell: Tell, cancel: threading.Event) -> None:
            result = job(cancel)
            if not cancel.is_set():  # else it may be half of it
                given.append(result)

        async for _ in self._events(Job(visitor, run, limit, long=True)):
            pass
        if not given:
            raise LeftError()
        return given[0]

    def give_way(self) -> None:
        """To be called by long work, on its own thread: answers the next question in between."""
        if any(job.thread == threading.get_ident() for job in tuple(self._working)):
            job = self._take(short=True)
            if job is not None:
                self._do(job)

    def leave(self, visitor: str) -> None:
        """Stop all that is done for a visitor, and give up his places in the queue."""
        with self._lock:
            jobs = [job for job in (*self._line, *self._working) if job.visitor == visitor]
        for job in jobs:
            self._drop(job)
            job.put(None)

    # --- the readers' side, on their event loops ---------------------------------------------

    async def _events(self, job: Job) -> AsyncGenerator[Event, None]:
        job.attend(self._bounds.patience, self._expire)
        try:
            self._enter(job)
            while (event := await job.next_event()) is not None:
                yield event
        finally:
            self._drop(job)
            job.unattended()

    def _enter(self, job: Job) -> None:
        with self._lock:
            here = [one for one in (*self._line, *self._working) if not one.cancel.is_set()]
            if sum(one.visitor == job.visitor for one in here) >= self._bounds.per_visitor:
                raise BusyError("yours")
            if len(self._line) >= self._bounds.room:
                raise BusyError("full")
            if self._threads == self._bounds.at_once:
                self._queues.setdefault(job.visitor, deque()).append(job)
                self._arrange()
                return
            self._threads += 1
            self._working.append(job)  # no position is told: its turn is now
        threading.Thread(target=self._serve, args=(job,), daemon=True, name="ragbot-desk").start()

    def _expire(self, job: Job) -> None:
        at_work = job.thread is not None
        job.put(
            LateError("work", job.limit) if at_work else LateError("queue", self._bounds.patience)
        )
        self._drop(job)

    def _drop(self, job: Job) -> None:
        job.cancel.set()
        with self._lock:
            if job in self._line:
                self._remove(job)
                self._arrange()

    # --- the queue, under the lock -----------------------------------------------------------

    def _arrange(self) -> None:
        """Everybody's place anew: by turns, the visitors who are being served last of all."""
        for job in self._working:
            if job.visitor in self._queues:
                self._queues.move_to_end(job.visitor)
        turns = zip_longest(*self._queues.values())
        line = [job for turn in turns for job in turn if job is not None]
        if any(job.long for job in self._working):  # it gives way to questions only
            line.sort(key=lambda job: job.long)
        self._line = tuple(line)
        for position, job in enumerate(line, start=1):
            job.moved(position)

    def _remove(self, job: Job) -> None:
        queue = self._queues[job.visitor]
        queue.remove(job)
        if not queue:
            del self._queues[job.visitor]

    # --- the workers' side, on their threads -------------------------------------------------

    def _serve(self, first: Job) -> None:
        job: Job | None = first
        while job is not None:
            self._do(job)
            job = self._take()

    def _take(self, *, short: bool = False) -> Job | None:
        with self._lock:
            job = next((one for one in self._line if not (short and one.long)), None)
            if job is None:
                if not short:  # who gives way goes on
                    self._threads -= 1
                return None
            self._remove(job)
            self._working.append(job)
            self._arrange()
            return job

    def _do(self, job: Job) -> None:
        try:
            job.begin(self._expire)
            if not job.cancel.is_set():
                job.run(job.put, job.cancel)
            job.put(None)
        except BaseException as error:  # handed to the reader, who raises it
            job.put(error)
        finally:
            with self._lock:
                self._working.remove(job)
                self._arrange()
