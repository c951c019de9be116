"""What the server does of its own accord, and that no visitor waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI

from ragbot.bot import RagBot
from ragbot.errors import ModelError
from ragbot.web import chores
from ragbot.web.chores import Chores
from ragbot.web.desk import Desk, Finished
from ragbot.web.own.uploads import Uploads
from ragbot.web.starts import Start, save_starts, saved_starts
from tests.served import QUESTION, SOON, TEXT, Clerk

START = Start(QUESTION, "zh-Hant", "doc1.txt", 1)


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(TEXT)


@pytest.fixture
def uploads(bot: RagBot, tmp_path: Path) -> Iterator[Uploads]:
    with closing(Uploads(bot, tmp_path / "uploads")) as uploads:
        yield uploads


@pytest.fixture
def desk(bot: RagBot) -> Desk:
    return Desk(bot)


Live = Callable[[Callable[[Chores], Awaitable[None]]], None]


@pytest.fixture
def live(bot: RagBot, desk: Desk, uploads: Uploads, tmp_path: Path) -> Live:
    """Run something while a server lives."""

    def run(story: Callable[[Chores], Awaitable[None]]) -> None:
        async def life() -> None:
            work, before = (
                Chores(bot, desk, uploads, tmp_path, tmp_path / "incoming"),
                asyncio.all_tasks(),
            )
            async with work.life(FastAPI()):
                await story(work)
            assert asyncio.all_tasks() == before

        asyncio.run(asyncio.wait_for(life(), 2 * SOON))

    return run


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.005)


def test_the_generator_is_warm_before_anybody_asks(
    live: Live, bot: RagBot, engine: Clerk, tmp_path: Path
) -> None:
    save_starts(tmp_path, bot.retriever.index, [START])

    async def story(work: Chores) -> None:
        assert list(work.starts()) == [START]
        await until(lambda: engine.asked)
        assert "成立" in engine.prompts[0][-1].content

    live(story)
    assert len(engine.asked) == 1


def test_who_asks_does_not_wait_for_that(
    live: Live, bot: RagBot, desk: Desk, engine: Clerk, tmp_path: Path
) -> None:
    save_starts(tmp_path, bot.retriever.index, [START])
    engine.gate.clear()

    async def story(work: Chores) -> None:
        await until(lambda: engine.asked)
        events = desk.ask(QUESTION + "a1", visitor="a")
        reading = asyncio.create_task(events.__anext__())
        await until(lambda: engine.left)  # the gate is shut still: it was given up
        engine.gate.set()
        await reading
        assert [event async for event in events if isinstance(event, Finished)]

    live(story)
    assert engine.asked[1] == "a1"


def test_questions_are_made_when_there_are_none_and_kept(
    live: Live, bot: RagBot, engine: Clerk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "chosen", lambda index: iter(index.chunks))
    monkeypatch.setattr(chores, "starts_for", lambda bot, passage, **given: (START,))

    async def story(work: Chores) -> None:
        assert list(work.starts()) == []
        await until(lambda: saved_starts(tmp_path, bot.retriever.index) == (START,))
        assert list(work.starts()) == [START]

    live(story)


@pytest.mark.parametrize("error", [ModelError("It is gone: name another."), RuntimeError("a bug")])
def test_a_failure_is_logged_and_the_server_lives(
    live: Live, bot: RagBot, engine: Clerk, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine.fails[""] = error

    async def story(work: Chores) -> None:
        await until(lambda: [r for r in caplog.records if r.name == chores.__name__])

    live(story)
    (record,) = [record for record in caplog.records if record.name == chores.__name__]
    assert record.levelno == (logging.WARNING if isinstance(error, ModelError) else logging.ERROR)


def test_a_server_that_ends_stops_it(live: Live, desk: Desk, engine: Clerk, tmp_path: Path) -> None:
    engine.gate.clear()

    async def story(work: Chores) -> None:
        await until(lambda: engine.asked)

    live(story)
    end = time.monotonic() + SOON
    while desk.running and time.monotonic() < end:
        time.sleep(0.005)
    assert not desk.running and len(engine.left) == 1


def test_idle_visitors_are_forgotten(
    live: Live, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[bool] = []
    monkeypatch.setattr(chores, "_SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(uploads, "sweep", lambda: swept.append(True))

    async def story(work: Chores) -> None:
        await until(lambda: len(swept) >= 2)

    live(story)


def test_what_was_sent_and_never_fetched_goes(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "_SWEEP_SECONDS", 0.01)
    folder = tmp_path / "incoming" / "a1b2"
    folder.mkdir(parents=True)
    old, new = folder / "old.txt", folder.parent / "tmpnew"
    for path in (old, new):
        path.write_text(TEXT, encoding="utf-8")
    os.utime(old, (0, 0))

    async def story(work: Chores) -> None:
        await until(lambda: not old.exists())

    live(story)
    assert new.exists()
