"""The site over a bot that answers as it is told, in the test's process or on a port of its own."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from ragbot.bot import RagBot
from ragbot.engines.base import TextStream
from ragbot.types import Message
from ragbot.web.desk import Event
from ragbot.web.guard import Rules
from ragbot.web.observe import Book, WatchedDesk
from ragbot.web.site import build_site, page_host
from tests.fakes import FakeEngine, Reply, nothing, reading

TEXT = "華為3月成立醫療衛生軍團。醫院用它看病理切片。"
ANSWER = "華為3月成立醫療衛生軍團。"
QUESTION = "華為什麼時候成立軍團？"
SOON = 15.0  # seconds within which what is to happen has happened, on any machine


class Clerk(FakeEngine):
    """Answers all questions alike once its gate is open, and notes who asked and who left.

    A question is known by a letter and a number in it (b2), if it has any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.left: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.reply: Reply = reading(ANSWER, ANSWER)

    def refuse(self) -> None:
        """From now on nothing answers."""
        self.reply = nothing()

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        name = re.findall(r"[a-z]\d+|$", messages[-1].content)[-2:][0]
        self.asked.append(name)
        while not self.gate.wait(0.002):
            if cancel and cancel.is_set():
                self.left.append(name)
                break
        self.enqueue(self.fails.get(name, self.reply))
        return super().stream(messages, max_tokens=max_tokens, cancel=cancel, form=form)


@asynccontextmanager
async def lives(app: FastAPI) -> AsyncGenerator[None, None]:
    """The life of a page on which nothing is done."""
    yield


def site(bot: RagBot, rules: Rules | None = None, *, page: ASGIApp | None = None) -> ASGIApp:
    """The site; without `page` its page is empty."""
    book = Book()
    desk = WatchedDesk(bot, book)
    return build_site(bot, desk, book, rules or Rules(rate=0), page or page_host(lives))


@contextmanager
def running(app: ASGIApp) -> Iterator[str]:
    """The address of a real server on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(SOON)
        assert not thread.is_alive()


def until(true: Callable[[], object]) -> None:
    """Wait for what is to happen soon."""
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def run_events(events: AsyncGenerator[Event, None], *, most: int = 1000) -> list[Event]:
    """So many of a question's events, which is then left."""

    async def read() -> list[Event]:
        found = []
        async with aclosing(events):
            async for event in events:
                found.append(event)
                if len(found) == most:
                    break
        return found

    return asyncio.run(read())
