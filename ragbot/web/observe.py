"""What is seen of the server: figures for Prometheus, and a line of JSON for each request.

No question and no address is written down unless asked for: a client is known by a hash whose salt
lives no longer than the process. What a page asks is no request of its own and has a line, too.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Sent

from ragbot.bot import RagBot
from ragbot.types import Answer, Message
from ragbot.web.api.wire import BUG, respond
from ragbot.web.desk import USUAL, Bounds, Desk, Event, Finished, Said, Waiting

log = logging.getLogger("ragbot.web")

_SECONDS = (0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_LEFT = 499  # the status, in logs only, of a request whose client left before there was one


def log_as_json(*, level: int = logging.INFO) -> None:
    """From now on whatever is logged, by anybody, is a line of JSON on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)  # some libraries tell all they do
    fields = {"levelname": "level", "name": "logger", "message": "event"}
    handler.setFormatter(
        JsonFormatter(list(fields), rename_fields=fields, timestamp="time", json_ensure_ascii=False)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(level)
    # It tells of exceptions what is told here already, and of clients who speak no HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class _Note:
    """What is known of a request under way."""

    open: bool = True
    told: dict[str, Any] = field(default_factory=dict)


_NOTE: ContextVar[_Note | None] = ContextVar("note", default=None)


class Book:
    """Where all of it is written down: `text` is what Prometheus reads."""

    def __init__(self, *, log_questions: bool = False):
        self._log_questions = log_questions
        self._salt = secrets.token_bytes(16)
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests", "route", "method", "status")
        self._request_seconds = self._seconds("request", "Time of a request, to its end", "route")
        self._questions = self._counter("questions", "Questions by what became of them", "outcome")
        self._tokens = self._counter("tokens", "Tokens read and written", "kind")
        self._waiting_seconds = self._seconds("waiting", "Time in the queue")
        self._first_text_seconds = self._seconds("first_text", "Time from question to first text")
        self._answer_seconds = self._seconds("answer", "Time from question to the whole answer")
        for outcome in ("answered", "refused", "failed", "left"):
            self._questions.labels(outcome)
        for kind in ("prompt", "completion"):
            self._tokens.labels(kind)

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)

    def follow(self, desk: Desk) -> None:
        """Show a desk's queue among the figures."""
        waiting = Gauge("ragbot_queue_length", "Questions that wait", registry=self._registry)
        waiting.set_function(lambda: desk.waiting)
        busy = Gauge("ragbot_busy", "Questions and other work under way", registry=self._registry)
        busy.set_function(lambda: desk.at_work)

    def client(self, name: str) -> str:
        """A client's name that tells nothing of him and is the same as long as this lives."""
        return hashlib.sha256(self._salt + name.encode()).hexdigest()[:12]

    def searched(self, query: str) -> None:
        """What the request under way looks for."""
        if (note := _NOTE.get()) and self._log_questions:
            note.told["question"] = query

    async def asked(
        self, visitor: str, question: str, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[Event, None]:
        """The same events, and what comes of them written down."""
        course = _Course()
        try:
            async with aclosing(events):
                async for event in events:
                    course.take(event)
                    yield event
        except Exception:
            course.failed = True
            raise
        finally:
            self._answered(visitor, question, course)

    def requested(self, scope: Scope, status: int, seconds: float, note: _Note) -> None:
        """A request came to its end."""
        route, method = _route(scope), str(scope["method"])
        method = method if method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        if status < 400 and method == "GET" and route != "/" and not route.startswith("/v1/"):
            return  # the page's parts, and who looks after the server: no news
        client = scope.get("client")
        line = {
            "route": route,
            "method": method,
            "status": status,
            "ms": round(seconds * 1000),
            "client": self.client(client[0] if client else ""),
        }
        log.info("request", extra=line | note.told)

    def _answered(self, visitor: str, question: str, course: _Course) -> None:
        now, answer = time.perf_counter(), course.answer
        self._questions.labels(course.outcome).inc()
        told: dict[str, Any] = {"outcome": course.outcome}
        if course.waited is not None:
            self._waiting_seconds.observe(course.waited)
            told["waiting_ms"] = round(course.waited * 1000)
        if course.first_text is not None:
            self._first_text_seconds.observe(course.first_text)
            told["first_text_ms"] = round(course.first_text * 1000)
        if answer:
            used = answer.timings
            self._answer_seconds.observe(now - course.begun)
            self._tokens.labels("prompt").inc(used.prompt_tokens)
            self._tokens.labels("completion").inc(used.completion_tokens)
            told |= {
                "prompt_tokens": used.prompt_tokens,
                "completion_tokens": used.completion_tokens,
                "refused": answer.abstained,
                "language": answer.language,
            }
        if self._log_questions:
            told["question"] = question
        note = _NOTE.get()
        if note and note.open:
            note.told |= told
        else:
            ms = round((now - course.begun) * 1000)
            log.info("answer", extra={"ms": ms, "client": self.client(visitor)} | told)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"ragbot_{name}", meaning, labels, registry=self._registry)

    def _seconds(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(
            f"ragbot_{name}_seconds", meaning, labels, registry=self._registry, buckets=_SECONDS
        )


class WatchedDesk(Desk):
    """A desk that writes down what becomes of its questions."""

    def __init__(self, bot: RagBot, book: Book, bounds: Bounds = USUAL):
        super().__init__(bot, bounds)
        self._book = book
        book.follow(self)

    def ask(
        self,
        question: str,
        *,
        visitor: str,
        history: Sequence[Message] = (),
        bot: RagBot | None = None,
    ) -> AsyncGenerator[Event, None]:
        events = super().ask(question, visitor=visitor, history=history, bot=bot)
        # Without a name it is the server itself, which is not worth a line.
        return self._book.asked(visitor, question, events) if visitor else events


class Observed:
    """ASGI middleware, the outermost: each request is written down, and what nobody caught is
    logged and told to the client in no more than a sentence."""

    def __init__(self, app: ASGIApp, book: Book):
        self._app, self._book = app, book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note, begun, status = _Note(), time.perf_counter(), 0

        async def sending(message: Sent) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        mark = _NOTE.set(note)
        try:
            await self._app(scope, receive, sending)
        except Exception:
            log.exception("A bug, please report it")
            if status:
                raise  # all that is left is to close the connection
            await respond(500, BUG)(scope, receive, sending)
        finally:
            note.open = False
            _NOTE.reset(mark)
            self._book.requested(scope, status or _LEFT, time.perf_counter() - begun, note)


class _Course:
    """What has happened to a question so far; times in seconds from the asking."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.waited: float | None = None
        self.first_text: float | None = None
        self.answer: Answer | None = None
        self.failed = False

    def take(self, event: Event) -> None:
        now = time.perf_counter() - self.begun
        if self.waited is None and not isinstance(event, Waiting):
            self.waited = now
        if self.first_text is None and isinstance(event, Said):
            self.first_text = now
        if isinstance(event, Finished):
            self.answer = event.answer

    @property
    def outcome(self) -> str:
        if self.answer:
            return "refused" if self.answer.abstained else "answered"
        return "failed" if self.failed else "left"


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: there are as many paths as clients like."""
    return str(getattr(scope.get("route"), "path", "other"))
