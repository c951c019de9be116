"""What the server does of its own accord: warm up, make example questions, forget the idle.

All that needs the generator is done at the desk, where visitors' questions come in between.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from pathlib import Path

from fastapi import FastAPI

from ragbot.bot import RagBot
from ragbot.errors import RagbotError, StoreError
from ragbot.text import sentences
from ragbot.types import Chunk
from ragbot.web.desk import Desk
from ragbot.web.own.files import forget_old
from ragbot.web.own.uploads import Uploads
from ragbot.web.starts import Start, chosen, save_starts, saved_starts, starts_for

_log = logging.getLogger(__name__)

_VISITOR = ""  # no visitor's name: it has its turns as any of them
_PASSAGES, _TRIES = 8, 2  # that give a question or more; passages tried for one that does
_LONGEST = 1800.0  # seconds for the questions of a passage, visitors' in between not taken off
_SWEEP_SECONDS = 60.0
_SENT_SECONDS = 1800.0  # that what was sent waits to be fetched
_POLL_SECONDS = 0.2
_HINT = 200  # characters of a question to warm up with


class Chores:
    """The server's own work over a bot whose index is in `folder`; what visitors send lies in
    `incoming` until it is fetched."""

    def __init__(self, bot: RagBot, desk: Desk, uploads: Uploads, folder: Path, incoming: Path):
        self._bot, self._desk, self._uploads, self._folder = bot, desk, uploads, folder
        self._incoming = incoming
        kept = saved_starts(folder, bot.retriever.index)
        self._made = kept is not None
        self._starts = kept or ()

    def starts(self) -> Sequence[Start]:
        """The example questions there are by now."""
        return self._starts

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncGenerator[None, None]:
        """From the start of a server to its end; what is under way then is given up."""
        tasks = [asyncio.create_task(work) for work in (self._prepare(), self._sweep())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepare(self) -> None:
        try:
            await self._warm_up()
            if not self._made:
                await self._make_starts()
        except RagbotError as error:  # whoever asks is told of it, too
            _log.warning("%s", error)
        except Exception:
            _log.exception("Preparing failed; questions may be answered all the same")

    async def _warm_up(self) -> None:
        """Load the generator, and have it read what all prompts begin with, until somebody asks."""
        asking = asyncio.create_task(self._ask(self._likely_question()))
        try:
            while not asking.done() and not self._desk.waiting:
                await asyncio.wait({asking}, timeout=_POLL_SECONDS)
        finally:
            asking.cancel()
            await asyncio.wait({asking})
        if not asking.cancelled():
            asking.result()

    async def _ask(self, question: str) -> None:
        async with aclosing(self._desk.ask(question, visitor=_VISITOR)) as events:
            async for _ in events:
                pass

    def _likely_question(self) -> str:
        if self._starts:
            return self._starts[0].question
        text = self._bot.retriever.index.chunks[0].text
        start, end = sentences(text)[0]
        return text[start:end][:_HINT]

    async def _make_starts(self) -> None:
        """A passage at a time, so that others' long work comes in between, too."""
        index, given = self._bot.retriever.index, 0
        # A server's index takes a while to look through.
        passages = await asyncio.to_thread(list, islice(chosen(index), _PASSAGES * _TRIES))
        for passage in passages:
            found = await self._starts_for(passage)
            self._starts = (*self._starts, *found)
            given += bool(found)
            if given == _PASSAGES:
                break
        await asyncio.to_thread(save_starts, self._folder, index, self._starts)

    async def _starts_for(self, passage: Chunk) -> tuple[Start, ...]:
        def job(cancel: threading.Event) -> tuple[Start, ...]:
            return starts_for(self._bot, passage, cancel=cancel, pause=self._desk.give_way)

        return await self._desk.work(_VISITOR, job, limit=_LONGEST)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                # Of what is broken off, or too large, Gradio leaves what has come.
                await asyncio.to_thread(forget_old, self._incoming, _SENT_SECONDS)
                await asyncio.to_thread(self._uploads.sweep)
            except (OSError, StoreError) as error:  # next time, then
                _log.warning("%s", error)
