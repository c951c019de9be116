"""From a question of the page to what the page is told, again and again, until there is an answer.

Each message holds all there is to show, so that one which is lost does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from pydantic import ValidationError

from ragbot.bot import RagBot
from ragbot.errors import ConfigError, UnknownDocumentError
from ragbot.types import Answer
from ragbot.web.desk import Desk, Event, Finished, Said, Waiting, Working
from ragbot.web.own.uploads import Uploads
from ragbot.web.page.failures import NoDocumentsError, bad_question, failure
from ragbot.web.page.records import Ask, record
from ragbot.web.page.render import View, answer_html, nearest_html, piece_html, reading_html
from ragbot.web.page.saving import copied
from ragbot.web.page.visitors import Visitors
from ragbot.web.starts import Start, suggestions

T = TypeVar("T")
Update = dict[str, Any]

_BEAT = 5.0  # seconds, after which the page is told again that all is well


class Asking:
    """Asks for visitors, and tells their pages what becomes of it."""

    def __init__(
        self,
        desk: Desk,
        bot: RagBot,
        uploads: Uploads,
        starts: Callable[[], Sequence[Start]],
        visitors: Visitors,
    ):
        self._desk, self._bot, self._uploads = desk, bot, uploads
        self._starts, self._visitors = starts, visitors

    async def updates(self, data: Mapping[str, Any], session: str) -> AsyncGenerator[Update, None]:
        """Messages for a page that asks, the last one of stage "done", "stopped" or "failed"."""
        try:
            ask = Ask.model_validate(data)
        except ValidationError as error:
            yield {"turn": data.get("turn"), "stage": "failed", "error": failure(error)}
            return
        shown = _Shown(ask)
        unwanted = self._visitors.begin(session, ask.visitor, ask.turn)
        try:
            yield shown.update("sending")
            async with aclosing(until(self._desk_events(ask), unwanted, _BEAT)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        yield await self._done(shown, event.answer)
                        return
                    yield shown.after(event)
            yield shown.update("stopped" if unwanted.is_set() else "failed", error={"code": "left"})
        except UnknownDocumentError as error:
            yield shown.update("failed", error=failure(error))
        except ConfigError:
            yield shown.update("failed", error=bad_question(ask.question))
        except Exception as error:  # the one place: whatever it is, the page can go on
            yield shown.update("failed", error=failure(error))
        finally:
            self._visitors.end(ask.turn)

    async def _desk_events(self, ask: Ask) -> AsyncGenerator[Event, None]:
        bot: RagBot | None = self._bot
        if ask.scope != "site":
            bot = await asyncio.to_thread(self._uploads.bot, ask.visitor)
        if bot is None:
            raise NoDocumentsError()
        if ask.documents:
            bot = await asyncio.to_thread(bot.within, ask.documents)
        events = self._desk.ask(ask.question, visitor=ask.visitor, history=ask.messages, bot=bot)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _done(self, shown: _Shown, answer: Answer) -> Update:
        ask = shown.ask
        following: tuple[str, ...] = ()
        if ask.scope == "site":
            encoder = self._bot.retriever.encoder
            starts = [
                one for one in self._starts() if not ask.documents or one.doc in ask.documents
            ]
            following = await asyncio.to_thread(suggestions, starts, answer, ask.asked, encoder)
        return shown.update(
            "done",
            answer=record(answer),
            html=answer_html(answer, shown.view),
            plain=copied(answer, ask.language),
            next=list(following),
        )


class _Shown:
    """What is on show for one question, from message to message."""

    def __init__(self, ask: Ask):
        self.ask = ask
        self.view = View(ask.language, mine=ask.scope == "mine")
        self._number = 0
        self._kept: Update = {"turn": ask.turn, "stage": "sending"}
        self._said = ""

    def update(self, stage: str, **fields: Any) -> Update:
        """The next message."""
        self._number += 1  # makes a message differ from the one before, so that it is noticed
        self._kept |= {"stage": stage}
        return {**self._kept, **fields, "number": self._number}

    def after(self, event: Event | None) -> Update:
        """The message that tells of an event, or, without one, that nothing has changed."""
        stage = str(self._kept["stage"])
        if isinstance(event, Waiting):
            stage = "waiting"
            self._kept["position"] = event.position
        elif isinstance(event, Working):
            stage = event.step.stage
            if event.step.passages:
                self._kept["passages"] = reading_html(event.step.passages, self.ask.language)
            if event.step.nearest:
                self._kept["nearest"] = nearest_html(event.step.nearest, self.view)
        elif isinstance(event, Said):
            stage = "telling"
            self._said += event.text
            self._kept |= {"said": self._said, "html": piece_html(self._said)}
        return self.update(stage)


async def until(
    events: AsyncGenerator[T, None], unwanted: asyncio.Event, beat: float
) -> AsyncGenerator[T | None, None]:
    """The events, and None whenever there was none for `beat` seconds, until they are unwanted.

    Then, and when this is left, `events` are closed at once, whatever they wait for.
    """
    leaving = asyncio.ensure_future(unwanted.wait())
    coming: asyncio.Future[T] | None = None
    try:
        while not unwanted.is_set():
            coming = coming or asyncio.ensure_future(_following(events))
            both: set[asyncio.Future[Any]] = {coming, leaving}
            await asyncio.wait(both, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            if unwanted.is_set():
                return
            if not coming.done():
                yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield event
    finally:
        leaving.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
            if not coming.cancelled():
                coming.exception()  # has been seen: nobody is told of it any more
        await events.aclose()


async def _following(events: AsyncGenerator[T, None]) -> T:
    return await anext(events)
