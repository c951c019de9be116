"""An answer on its way to an HTTP client: OpenAI's chunks as server-sent events, and clients who
hang up in the middle.

A server notices that at once only if somebody waits for it: a response that only sends does not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ragbot.types import Answer
from ragbot.web.api.errors import explained
from ragbot.web.api.wire import MODEL
from ragbot.web.desk import Event, Finished, Said, Waiting

T = TypeVar("T")

Closing = Callable[[Answer], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Gives what the last chunk tells of an answer besides its text, and the tokens it took."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` gives. Raises ClientDisconnect, and cancels it, when the client hangs up."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect()
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Live(StreamingResponse):
    """A stream of server-sent events whose source is closed as soon as the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[str, None]):
        # Neither the browser nor a proxy may keep pieces back.
        super().__init__(source, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._source):
            with suppress(ClientDisconnect):
                await unless_gone(receive, self.stream_response(send))


async def chunks(
    id: str, events: AsyncGenerator[Event, None], closing: Closing, *, usage: bool
) -> AsyncGenerator[str, None]:
    """The stream of an answer; `usage` when the tokens it took are asked for, too."""
    head: dict[str, Any] = {"id": id, "object": "chat.completion.chunk", "model": MODEL}
    head["created"] = int(time.time())
    tail: dict[str, Any] = {"usage": None} if usage else {}

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data(head | {"choices": [choice]} | tail)

    yield chunk({"role": "assistant", "content": ""})
    async with aclosing(events):
        try:
            async for event in events:
                if isinstance(event, Said):
                    yield chunk({"content": event.text})
                elif isinstance(event, Finished):
                    told, used = closing(event.answer)
                    yield chunk(told, "stop")
                    if usage:
                        yield _data(head | {"choices": [], "usage": used})
                    yield "data: [DONE]\n\n"
                else:
                    yield _comment(event)
        except Exception as error:  # its status has gone out long ago
            status, failed, _ = explained(error)
            yield _data(failed.model_dump())
            if status == 500:
                raise


async def begun(
    receive: Receive, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    """The same events, once there is a first one: what fails before can still have a status."""
    first = await unless_gone(receive, anext(events))

    async def whole() -> AsyncGenerator[Event, None]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return whole()


def _comment(event: Event) -> str:
    said = f"waiting {event.position}" if isinstance(event, Waiting) else "working"
    return f": {said}\n\n"


def _data(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
