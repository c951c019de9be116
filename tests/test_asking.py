"""From a question of the page to its answer: the messages, stopping, closed tabs, and failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ragbot.bot import RagBot
from ragbot.engines.base import TextStream
from ragbot.errors import ModelError
from ragbot.types import Message
from ragbot.web.desk import Desk
from ragbot.web.own.uploads import Uploads
from ragbot.web.page.asking import Asking, Update, until
from ragbot.web.page.visitors import Visitors
from ragbot.web.starts import Start
from tests.fakes import FakeEngine, Reply, reading

T = TypeVar("T")

CORPS = "華為3月宣告組建醫療衛生軍團。"
FOUNDED = reading(CORPS, "華為在3月宣告組建醫療衛生軍團。")
STARTS = (
    Start("百川智能做了什麼？", "zh-Hant", "doc1.txt", 2),
    Start("華為組建了什麼？", "zh-Hant", "doc1.txt", 1),
    Start("What did Baichuan do?", "en", "doc1.txt", 2),
)
VISITOR, TURN = "visitor-of-this-test", "turn-of-this-test-0001"
SOON = 30.0  # seconds within which what is to happen has happened, on any machine


class Gated(FakeEngine):
    """Says nothing before its gate is open, or nobody waits any more."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.left = threading.Event()

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        while not self.gate.wait(0.005):
            if cancel and cancel.is_set():
                self.left.set()
                break
        return super().stream(messages, max_tokens=max_tokens, cancel=cancel, form=form)


@pytest.fixture
def engine() -> Gated:
    return Gated()


class Office:
    """Everything that a question goes through."""

    def __init__(self, bot: RagBot, folder: Path):
        self.desk = Desk(bot)
        self.visitors = Visitors(self.desk.leave)
        self.uploads = Uploads(bot, folder / "uploads")
        self.asking = Asking(self.desk, bot, self.uploads, lambda: STARTS, self.visitors)

    def ask(self, question: str = "華為的軍團？", **fields: Any) -> AsyncGenerator[Update, None]:
        data = {"visitor": VISITOR, "turn": TURN, "question": question, "language": "zh-Hant"}
        return self.asking.updates(data | fields, "session")


@pytest.fixture
def office(make_bot: Callable[..., RagBot], tmp_path: Path) -> Office:
    return Office(make_bot(f"{CORPS}\n百川智能投向醫療。"), tmp_path)


async def read(updates: AsyncGenerator[Update, None]) -> list[Update]:
    return [update async for update in updates]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, SOON))


def test_a_page_is_told_of_each_step_and_then_of_all(
    office: Office, engine: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragbot.retriever.NEAR", 0.0)  # as any two texts are to a real encoder
    engine.enqueue(FOUNDED)
    updates = run(read(office.ask(asked=["華為的軍團？"])))
    stages = [update["stage"] for update in updates]
    assert stages == sorted(stages, key=stages.index), "no step is gone back to"
    assert stages[0] == "sending" and {"searching", "reading"} < set(stages)
    assert "doc1.txt" in next(u["passages"] for u in updates if u["stage"] == "reading")
    assert CORPS in next(u["nearest"] for u in updates if u["stage"] == "reading")
    last = updates[-1]
    assert last["stage"] == "done" and last["turn"] == TURN
    assert last["answer"]["answer"] == "華為在3月宣告組建醫療衛生軍團。[1]"
    assert 'class="marker"' in last["html"] and CORPS in last["plain"]
    assert last["next"] == ["百川智能做了什麼？"]
    assert last["answer"]["raw"] == "" and last["answer"]["signals"] == {}


def test_no_two_messages_are_alike(office: Office, engine: Gated) -> None:
    engine.enqueue(FOUNDED)
    updates = run(read(office.ask()))
    assert all(one != other for one, other in pairwise(updates))


def test_the_talk_before_is_handed_on(office: Office, engine: Gated) -> None:
    engine.enqueue("華為的軍團在什麼時候宣告？", FOUNDED)
    last = run(read(office.ask("什麼時候？", history=[["華為組建了什麼？", "軍團。[1]"]])))[-1]
    assert "華為組建了什麼？" in engine.prompts[0][-1].content
    assert last["answer"]["question"] == "什麼時候？"


def test_the_documents_that_are_chosen_are_asked_alone(
    make_bot: Callable[..., RagBot], engine: Gated, tmp_path: Path
) -> None:
    office = Office(make_bot(f"{CORPS}\n百川智能投向醫療。", "天氣很好。"), tmp_path)
    engine.enqueue(FOUNDED, FOUNDED)
    last = run(read(office.ask(documents=["doc1.txt"])))[-1]
    assert last["answer"]["citations"] and last["next"] == ["百川智能做了什麼？"]
    last = run(read(office.ask(documents=["doc2.txt"])))[-1]
    assert last["answer"]["abstained"] and last["next"] == []
    assert {row["chunk"]["doc"] for row in last["answer"]["passages"]} == {"doc2.txt"}


def test_chosen_documents_of_a_visitors_own_are_asked_alone(
    office: Office, engine: Gated, tmp_path: Path
) -> None:
    for name, text in (("a.txt", "貓叫小黑。"), ("b.txt", "狗叫小白。")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        office.uploads.add(
            VISITOR, [(name, tmp_path / name)], lambda done, total: None, threading.Event()
        )
    engine.enqueue(reading("狗叫小白。", "狗叫小白。"))
    last = run(read(office.ask("狗叫什麼？", scope="mine", documents=["b.txt"])))[-1]
    assert [row["chunk"]["doc"] for row in last["answer"]["passages"]] == ["b.txt"]


# --- failing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "code"),
    [(ModelError("/secret away"), "model"), (RuntimeError("/secret"), "failed")],
)
def test_a_failure_is_a_code_and_the_next_question_works(
    office: Office, engine: Gated, reply: Exception, code: str
) -> None:
    engine.enqueue(reply)
    last = run(read(office.ask()))[-1]
    assert (last["stage"], last["error"]) == ("failed", {"code": code})
    assert "secret" not in repr(last)
    engine.enqueue(FOUNDED)
    assert run(read(office.ask()))[-1]["stage"] == "done"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"question": " "}, "empty"),
        ({"question": "a" * 3000}, "long"),
        ({"question": "a\0b"}, "characters"),
        ({"scope": "mine"}, "mine"),
        ({"documents": ["gone.txt"]}, "document"),
        ({"documents": ["doc1.txt"] * 101}, "large"),
        ({"documents": "doc1.txt"}, "failed"),
        ({"scope": "everything"}, "failed"),
        ({"visitor": "../../etc"}, "failed"),
        ({"visitor": 7}, "failed"),
        ({"language": "fr"}, "failed"),
        ({"history": [["a" * 20_000, "b"]]}, "large"),
        ({"history": [["a", "b"]] * 21}, "large"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    office: Office, engine: Gated, fields: dict[str, Any], code: str
) -> None:
    last = run(read(office.ask(**fields)))[-1]
    assert (last["stage"], last["error"]["code"]) == ("failed", code)
    assert engine.prompts == []


def test_who_asks_too_much_at_once_is_told_so(office: Office, engine: Gated) -> None:
    async def ask_thrice() -> Update:
        engine.gate.clear()
        others = [office.ask(turn=f"turn-of-this-test-100{n}") for n in range(2)]
        tasks = [asyncio.ensure_future(read(one)) for one in others]
        while not (office.desk.running and office.desk.waiting):
            await asyncio.sleep(0.005)
        last = (await read(office.ask()))[-1]
        engine.enqueue(FOUNDED, FOUNDED).gate.set()  # type: ignore[attr-defined]
        await asyncio.gather(*tasks)
        return last

    assert run(ask_thrice())["error"] == {"code": "yours"}


# --- leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "tab", "other tab", "close", "leave"])
def test_who_leaves_stops_the_generator_at_once(office: Office, engine: Gated, how: str) -> None:
    async def leave() -> list[Update]:
        engine.gate.clear()
        updates, seen = office.ask(), []
        async for update in updates:
            seen.append(update)
            if update["stage"] == "reading":
                break
        waiting = asyncio.ensure_future(read(updates))
        await asyncio.sleep(0.01)
        if how == "stop":
            office.visitors.stop(TURN)
        elif how == "tab":
            office.visitors.gone("session")
        elif how == "other tab":
            office.visitors.here("another", VISITOR)
            office.visitors.gone("session")
        elif how == "leave":
            office.desk.leave(VISITOR)
        else:
            waiting.cancel()
        with suppress(asyncio.CancelledError):
            seen += await waiting
        while office.desk.running:
            await asyncio.sleep(0.005)
        return seen

    seen = run(leave())
    assert engine.left.is_set()
    expected = {"close": "reading", "leave": "failed"}.get(how, "stopped")
    assert seen[-1]["stage"] == expected


def test_a_visitor_leaves_with_the_last_of_his_tabs() -> None:
    left: list[str] = []
    visitors = Visitors(left.append)
    for session, visitor in (("a", "x"), ("b", "x"), ("c", "y")):
        visitors.here(session, visitor)
    for session in ("a", "c", "unknown"):
        visitors.gone(session)
    assert left == ["y"]
    visitors.gone("b")
    assert left == ["y", "x"]


def test_stopping_what_is_not_under_way_is_nothing() -> None:
    Visitors(lambda visitor: None).stop("turn")


# --- beats -----------------------------------------------------------------------------------


async def _numbers(closed: list[bool], pause: float = 0.0) -> AsyncGenerator[int, None]:
    try:
        for number in range(3):
            await asyncio.sleep(pause)
            yield number
    finally:
        closed.append(True)


def test_events_come_through_in_order() -> None:
    async def all_of() -> list[int | None]:
        return [one async for one in until(_numbers([]), asyncio.Event(), 1.0)]

    assert run(all_of()) == [0, 1, 2]


def test_silence_is_told_and_loses_nothing() -> None:
    async def all_of() -> list[int | None]:
        return [one async for one in until(_numbers([], 0.05), asyncio.Event(), 0.01)]

    found = run(all_of())
    assert [one for one in found if one is not None] == [0, 1, 2] and found.count(None) > 3


def test_what_is_unwanted_is_closed_while_it_waits() -> None:
    closed: list[bool] = []

    async def leave() -> list[int | None]:
        unwanted = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, unwanted.set)
        return [one async for one in until(_numbers(closed, 60.0), unwanted, 9.0)]

    assert run(leave()) == [] and closed == [True]


def test_an_error_comes_through() -> None:
    async def fail() -> AsyncGenerator[int, None]:
        yield 1
        raise ModelError("away")

    async def all_of() -> list[int | None]:
        return [one async for one in until(fail(), asyncio.Event(), 1.0)]

    with pytest.raises(ModelError, match="away"):
        run(all_of())


def test_what_is_said_so_far_is_shown(office: Office, engine: Gated) -> None:
    engine.enqueue(Reply(FOUNDED.text))
    told = [update for update in run(read(office.ask())) if update["stage"] == "telling"]
    assert told and told[-1]["said"] == "華為在3月宣告組建醫療衛生軍團。[1]"
    assert told[-1]["html"].startswith('<div class="told"')
