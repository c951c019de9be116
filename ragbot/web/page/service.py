"""The short requests of the page, each answered with one object; whatever goes wrong, with a code.

Questions take their own way (`asking`); what a request may hold, `records` says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragbot.bot import RagBot
from ragbot.types import Answer, Document
from ragbot.web.desk import Desk
from ragbot.web.feedback import Feedback, Rated
from ragbot.web.own.uploads import UploadError, Uploads
from ragbot.web.page import records
from ragbot.web.page.failures import failure
from ragbot.web.page.reading import Spot, opened
from ragbot.web.page.render import View, answer_html, piece_html
from ragbot.web.page.saving import as_json, copied, markdown
from ragbot.web.page.visitors import Visitors
from ragbot.web.starts import Start

Reply = dict[str, Any]

_LISTED = 200  # names of documents that a page is told at once


class Service:
    """Answers the page's requests. `incoming` is the only folder that files are taken from."""

    def __init__(
        self,
        bot: RagBot,
        uploads: Uploads,
        feedback: Feedback,
        starts: Callable[[], Sequence[Start]],
        incoming: Path,
    ):
        self._bot, self._uploads, self._feedback = bot, uploads, feedback
        self._starts, self._incoming = starts, incoming
        self._adding: dict[str, _Adding] = {}

    def at(self, desk: Desk, visitors: Visitors) -> Callable[[Any], Awaitable[Reply]]:
        """What answers the requests, with the desk that heavy work is done at."""
        answers: dict[type, Callable[[Any], Awaitable[Reply]]] = {
            records.Begin: self._begin,
            records.Alive: self._alive,
            records.Show: self._show,
            records.Open: self._open,
            records.List: self._list,
            records.Rate: self._rate,
            records.Adding: self._follow,
            records.Remove: self._remove,
            records.Save: self._save,
        }

        async def serve(data: Any) -> Reply:
            try:
                request = records.request(data)
                if isinstance(request, records.Stop):
                    visitors.stop(request.turn)
                    return {}
                if isinstance(request, records.Add):
                    return await self._add(request, desk)
                return await answers[type(request)](request)
            except Exception as error:  # the one place: no trace of it reaches a visitor
                return {"error": failure(error)}

        return serve

    async def _begin(self, request: records.Begin) -> Reply:
        starts = [
            {"question": one.question, "language": one.language, "doc": one.doc}
            for one in self._starts()
        ]
        limits = self._uploads.limits.summary()
        return {"starts": starts, "limits": limits, "names": await self._names(request.visitor)}

    async def _alive(self, request: records.Alive) -> Reply:
        self._uploads.touch(request.visitor)
        return {"names": await self._names(request.visitor)}

    async def _names(self, visitor: str) -> list[str]:
        return list(await asyncio.to_thread(self._uploads.names, visitor))

    async def _show(self, request: records.Show) -> Reply:
        return {"shown": await asyncio.to_thread(_shown, request)}

    async def _open(self, request: records.Open) -> Reply:
        documents = await self._documents(request)
        spot = Spot(request.doc, request.start, request.end, request.quote, request.part)
        return asdict(await asyncio.to_thread(opened, documents, spot, request.language))

    async def _list(self, request: records.List) -> Reply:
        return await asyncio.to_thread(_named, await self._documents(request), request.like)

    async def _documents(self, request: records.Open | records.List) -> Mapping[str, Document]:
        bot: RagBot | None = self._bot
        if request.scope != "site":
            bot = await asyncio.to_thread(self._uploads.bot, request.visitor)
        return bot.retriever.index.documents if bot else {}

    async def _rate(self, request: records.Rate) -> Reply:
        if request.verdict is None:
            await asyncio.to_thread(self._feedback.withdraw, request.turn)
            return {}
        rated = Rated(
            id=request.turn,
            answer=request.answer,
            verdict=request.verdict,
            remark=request.remark,
            history=tuple(records.messages(request.history)),
            own=request.scope == "mine",
        )
        await asyncio.to_thread(self._feedback.record, rated)
        return {}

    async def _save(self, request: records.Save) -> Reply:
        answers: list[Answer] = [turn.answer for turn in request.turns if turn.answer]
        if request.form == "json":
            return {"text": as_json(answers)}
        return {"text": markdown(answers, request.language)}

    # --- own documents -----------------------------------------------------------------------

    async def _add(self, request: records.Add, desk: Desk) -> Reply:
        files = [(one.name, self._sent(one)) for one in request.files]
        adding = _Adding(desk)
        self._adding[request.visitor] = adding

        def job(cancel: threading.Event) -> None:
            self._uploads.add(request.visitor, files, adding.progress, cancel)

        try:
            adding.task = asyncio.ensure_future(desk.work(request.visitor, job))
            await adding.task
        except asyncio.CancelledError as error:
            if not adding.cancelled:
                raise
            raise UploadError("stopped") from error
        finally:
            if self._adding.get(request.visitor) is adding:
                del self._adding[request.visitor]
            for _, path in files:
                path.unlink(missing_ok=True)
        return {"names": await self._names(request.visitor)}

    def _sent(self, file: records.Stored) -> Path:
        """Where a file that the page sent lies: nothing else on this machine is taken for one."""
        path = Path(file.stored)
        if not path.resolve().is_relative_to(self._incoming.resolve()) or not path.is_file():
            raise UploadError("unreadable", file.name[:80])
        return path

    async def _follow(self, request: records.Adding) -> Reply:
        adding = self._adding.get(request.visitor)
        if adding is not None and request.do == "cancel":
            adding.cancel()
        return {"percent": adding.percent if adding else None}

    async def _remove(self, request: records.Remove) -> Reply:
        await asyncio.to_thread(self._uploads.remove, request.visitor, request.name)
        return {"names": await self._names(request.visitor)}


class _Adding:
    """Files of one visitor that are being added."""

    def __init__(self, desk: Desk):
        self._desk = desk
        self.percent: int | None = None
        self.cancelled = False
        self.task: asyncio.Future[None] | None = None

    def progress(self, done: int, total: int) -> None:
        """On the desk's thread: how far it is. Others' questions are answered in between."""
        self.percent = round(100 * done / max(total, 1))
        self._desk.give_way()

    def cancel(self) -> None:
        """Give it up."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


def _named(documents: Iterable[str], like: str) -> Reply:
    names = [name for name in documents if like.casefold() in name.casefold()]
    return {"names": names[:_LISTED], "total": len(names)}


def _shown(request: records.Show) -> list[Reply]:
    return [_turn(turn, request) for turn in request.turns]


def _turn(turn: records.Kept, request: records.Show) -> Reply:
    if turn.answer is None:
        return {"html": piece_html(turn.said)}
    view = View(request.language, mine=turn.scope == "mine")
    return {
        "html": answer_html(turn.answer, view),
        "plain": copied(turn.answer, request.language),
    }
