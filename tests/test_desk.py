"""Questions in front of one generator: turns, places, leaving, time, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from ragbot.bot import RagBot
from ragbot.engines.base import TextStream
from ragbot.errors import ConfigError, ModelError, RagbotError
from ragbot.types import Message
from ragbot.web.desk import (
    Bounds,
    BusyError,
    Desk,
    Event,
    Finished,
    LateError,
    LeftError,
    Said,
    Waiting,
    Working,
)
from tests.fakes import FakeEngine
from tests.served import SOON, TEXT, Clerk

T = TypeVar("T")


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(TEXT)


def question(name: str) -> str:
    return f"華為什麼時候成立軍團 {name}？"


class Room:
    """Visitors, each one's first letter his name, and what they were told."""

    def __init__(self, desk: Desk):
        self.desk = desk
        self.told: dict[str, list[Event]] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        for name in names:
            self.told[name] = []
            self.tasks[name] = asyncio.create_task(self._read(name))
            await asyncio.sleep(0.003)  # in this order

    async def _read(self, name: str) -> None:
        async for event in self.desk.ask(question(name), visitor=name[0]):
            self.told[name].append(event)

    def place(self, name: str) -> int:
        places = [event.position for event in self.told[name] if isinstance(event, Waiting)]
        return places[-1] if places else 0

    async def leave(self, name: str) -> None:
        self.tasks.pop(name).cancel()
        await asyncio.sleep(0.003)

    async def finish(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self.tasks.values()), SOON)


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.002)


def run(story: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(story, 4 * SOON))


# --- what is told ---------------------------------------------------------------------------------


def test_an_answer_is_told_as_it_comes_about(bot: RagBot) -> None:
    async def story() -> list[Event]:
        return [event async for event in Desk(bot).ask(question("a1"), visitor="a")]

    events = run(story())
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Working, Said, Finished].index) and kinds[-1] is Finished
    steps = [event.step for event in events if isinstance(event, Working)]
    assert [step.stage for step in steps][:2] == ["searching", "reading"] and steps[1].passages
    last = events[-1]
    assert isinstance(last, Finished) and last.answer.citations
    assert "".join(e.text for e in events if isinstance(e, Said)) == last.answer.text
    again = bot.ask(question("a1"))
    assert replace(last.answer, timings=again.timings) == again


@pytest.mark.parametrize("bad", ["", " \n", "？！", "a\0b", "長" * 2001])
def test_a_bad_question_is_refused_before_it_is_queued(bot: RagBot, bad: str) -> None:
    desk = Desk(bot)
    with pytest.raises(ConfigError):
        desk.ask(bad, visitor="a")
    assert (desk.waiting, desk.running) == (0, False)


def test_another_bot_and_a_history_reach_the_question(
    make_bot: Callable[..., RagBot], engine: Clerk, bot: RagBot
) -> None:
    class Broken(FakeEngine):
        def stream(self, *args: object, **given: object) -> TextStream:
            raise ModelError("not this one")

    broken = RagBot(bot.retriever, Broken)
    history = [Message("user", "華為做什麼 h1？"), Message("assistant", "手機。")]

    async def story() -> Event:
        events = Desk(broken).ask(question("a1"), visitor="a", history=history, bot=bot)
        return [event async for event in events][-1]

    assert isinstance(run(story()), Finished)
    assert any("手機" in prompt[-1].content for prompt in engine.prompts)


# --- turns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arriving", "served"),
    [
        ("a1", "a1"),
        ("a1 a2 a3", "a1 a2 a3"),
        ("a1 a2 a3 b1 c1", "a1 b1 c1 a2 a3"),
        ("a1 b1 b2 a2 c1", "a1 b1 c1 a2 b2"),
        ("a1 b1 c1 b2 c2 a2 a3", "a1 b1 c1 a2 b2 c2 a3"),
        ("a1 a2 b1 b2 b3 c1", "a1 b1 c1 a2 b2 b3"),
    ],
)
def test_visitors_take_turns(bot: RagBot, engine: Clerk, arriving: str, served: str) -> None:
    async def story() -> None:
        room = Room(Desk(bot, Bounds(per_visitor=9)))
        engine.gate.clear()
        await room.ask(*arriving.split())
        engine.gate.set()
        await room.finish()

    run(story())
    assert " ".join(engine.asked) == served


@pytest.mark.parametrize("seed", range(12))
def test_the_places_told_are_those_in_which_they_are_served(
    bot: RagBot, engine: Clerk, seed: int
) -> None:
    luck = random.Random(seed)

    async def story() -> list[str]:
        desk = Desk(bot, Bounds(per_visitor=99))
        room = Room(desk)
        engine.gate.clear()
        await room.ask("z0")
        await until(lambda: engine.asked)
        for number in range(1, luck.randint(5, 15)):
            if len(room.tasks) > 2 and luck.random() < 0.3:
                await room.leave(luck.choice([name for name in room.tasks if name != "z0"]))
            else:
                await room.ask(luck.choice("abcz") + str(number))
            waiting = [name for name in room.tasks if name != "z0"]
            assert sorted(map(room.place, waiting)) == list(range(1, desk.waiting + 1))
        expected = sorted((name for name in room.tasks if name != "z0"), key=room.place)
        engine.gate.set()
        await room.finish()
        for name, events in room.told.items():
            places = [event.position for event in events if isinstance(event, Waiting)]
            assert all(a != b for a, b in pairwise(places)), name
        return ["z0", *expected]

    assert run(story()) == engine.asked


@pytest.mark.parametrize("at_once", [2, 3, 8])
def test_so_many_are_at_work_as_there_is_room_for(bot: RagBot, engine: Clerk, at_once: int) -> None:
    """The others wait, in turns; whoever comes when there is room is told of no place."""

    async def story() -> Room:
        desk = Desk(bot, Bounds(at_once=at_once))
        room = Room(desk)
        engine.gate.clear()
        await room.ask(*"a1 b1 a2 c1 d1 b2".split())
        await until(lambda: len(engine.asked) == min(at_once, 6))
        assert desk.waiting == max(0, 6 - at_once) and desk.running
        engine.gate.set()
        await room.finish()
        await until(lambda: (desk.waiting, desk.running) == (0, False))
        await room.ask("e1")  # all threads are gone, one comes anew
        await room.finish()
        return room

    room = run(story())
    assert sorted(engine.asked) == ["a1", "a2", "b1", "b2", "c1", "d1", "e1"]
    waited = [name for name in room.told if any(isinstance(e, Waiting) for e in room.told[name])]
    assert waited == {2: ["a2", "c1", "d1", "b2"], 3: ["c1", "d1", "b2"], 8: []}[at_once]
    answers = [told[-1].answer for told in room.told.values() if isinstance(told[-1], Finished)]
    assert len(answers) == 7 and len({answer.text for answer in answers}) == 1


def test_long_work_beside_questions_gives_way_only_when_there_is_no_room(
    bot: RagBot, engine: Clerk
) -> None:
    async def story() -> None:
        desk = Desk(bot, Bounds(at_once=2))
        done = threading.Event()

        def job(cancel: threading.Event) -> int:
            while not done.wait(0.002):
                desk.give_way()
            return 7

        task = asyncio.create_task(desk.work("", job))
        await until(lambda: desk.running)
        engine.gate.clear()
        room = Room(desk)
        await room.ask("a1", "b1", "c1")  # beside it, in between, and waiting
        await until(lambda: len(engine.asked) == 2)
        assert desk.waiting == 1
        engine.gate.set()
        await room.finish()
        done.set()
        assert await task == 7
        await until(lambda: not desk.running)

    run(story())
    assert sorted(engine.asked) == ["a1", "b1", "c1"]


def test_nobody_waits_for_a_visitor_who_asks_without_end(bot: RagBot, engine: Clerk) -> None:
    async def story() -> list[int]:
        room = Room(Desk(bot, Bounds(per_visitor=99)))
        engine.gate.clear()
        await room.ask(*(f"a{number}" for number in range(12)), "b1")
        places = [room.place("b1")]
        await room.ask("a20", "a21")
        places.append(room.place("b1"))
        engine.gate.set()
        await room.finish()
        return places

    assert run(story()) == [1, 1]
    assert engine.asked[1] == "b1"


# --- leaving --------------------------------------------------------------------------------------


async def drained(events: AsyncGenerator[Event, None]) -> None:
    async for _ in events:
        pass


@pytest.mark.parametrize("how", ["cancel", "close", "forget", "leave"])
@pytest.mark.parametrize("when", ["running", "queued"])
def test_who_leaves_is_gone_at_once(bot: RagBot, engine: Clerk, how: str, when: str) -> None:
    async def story() -> None:
        desk = Desk(bot)
        room = Room(desk)
        engine.gate.clear()
        if when == "queued":
            await room.ask("z1")
        events = desk.ask(question("a1"), visitor="a")
        await asyncio.wait_for(events.__anext__(), SOON)
        await room.ask("b1")
        if when == "running":
            await until(lambda: engine.asked == ["a1"])
        if how == "close":
            await events.aclose()
        elif how == "leave":
            desk.leave("a")
            assert [event async for event in events if isinstance(event, Finished)] == []
        elif how == "cancel":
            reader = asyncio.create_task(drained(events))
            await asyncio.sleep(0.005)
            reader.cancel()
        del events
        gc.collect()
        if when == "queued":
            await until(lambda: room.place("b1") == 1)
            assert desk.waiting == 1
        else:  # the gate is still shut: only leaving lets the next one in
            await until(lambda: engine.asked == ["a1", "b1"])
            assert engine.left == ["a1"]
        engine.gate.set()
        await room.finish()

    run(story())
    assert engine.asked == (["z1", "b1"] if when == "queued" else ["a1", "b1"])


def test_leaving_stops_all_of_a_visitor_and_nothing_of_others(bot: RagBot, engine: Clerk) -> None:
    async def story() -> Room:
        desk = Desk(bot, Bounds(per_visitor=3))
        room = Room(desk)
        engine.gate.clear()
        await room.ask("a1", "b1", "a2", "a3", "b2")
        desk.leave("a")
        desk.leave("nobody")
        await until(lambda: engine.asked[-1] == "b1")
        assert desk.waiting == 1
        engine.gate.set()
        await room.finish()
        return room

    room = run(story())
    assert {name: isinstance(told[-1], Finished) for name, told in room.told.items()} == dict(
        a1=False, a2=False, a3=False, b1=True, b2=True
    )


def test_an_iterator_that_is_never_read_takes_no_place(bot: RagBot) -> None:
    async def story() -> None:
        desk = Desk(bot)
        events = desk.ask(question("a1"), visitor="a")
        assert (desk.waiting, desk.running) == (0, False)
        await events.aclose()

    run(story())


def test_a_reader_who_does_not_read_holds_up_nobody(bot: RagBot, engine: Clerk) -> None:
    async def story() -> list[type]:
        desk = Desk(bot)
        slow = desk.ask(question("a1"), visitor="a")
        await slow.__anext__()
        room = Room(desk)
        await room.ask("b1", "c1")
        await room.finish()
        return [type(event) async for event in slow]

    assert run(story())[-1] is Finished
    assert engine.asked == ["a1", "b1", "c1"]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ModelError("no model"), RuntimeError("a bug"), StopIteration()])
def test_the_failure_of_one_stays_his(bot: RagBot, engine: Clerk, error: Exception) -> None:
    engine.fails["a1"] = error

    async def story() -> list[object]:
        room = Room(Desk(bot))
        await room.ask("a1", "b1")
        return await asyncio.gather(*room.tasks.values(), return_exceptions=True)

    outcome = run(story())
    assert isinstance(outcome[0], RuntimeError if isinstance(error, StopIteration) else type(error))
    assert outcome[1] is None and engine.asked == ["a1", "b1"]


@pytest.mark.parametrize(
    ("asking", "reason"),
    [("a1 a2 a3", "yours"), ("a1 b1 c1 d1", ""), ("a1 b1 c1 d1 e1", "full"), ("a1 b1 b2 c1", "")],
)
def test_there_is_only_so_much_room(bot: RagBot, engine: Clerk, asking: str, reason: str) -> None:
    async def story() -> str:
        room = Room(Desk(bot, Bounds(room=3, per_visitor=2)))
        engine.gate.clear()
        *earlier, last = asking.split()
        await room.ask(*earlier, last)
        found = ""
        if room.tasks[last].done():
            error = room.tasks.pop(last).exception()
            assert isinstance(error, BusyError) and isinstance(error, RagbotError)
            found = error.reason
        engine.gate.set()
        await room.finish()
        return found

    assert run(story()) == reason


def test_who_stops_may_ask_again_at_once(bot: RagBot, engine: Clerk) -> None:
    async def story() -> None:
        room = Room(Desk(bot, Bounds(per_visitor=1)))
        engine.gate.clear()
        for number in range(5):
            await room.ask(f"a{number}")
            await room.leave(f"a{number}")
        engine.gate.set()
        await room.ask("a9")
        await room.finish()
        assert isinstance(room.told["a9"][-1], Finished)

    run(story())


@pytest.mark.parametrize(
    ("given", "late", "reason"),
    [({"patience": 0.05}, "b1", "queue"), ({"limit": 0.05}, "a1", "work")],
)
def test_time_is_up(
    bot: RagBot, engine: Clerk, given: dict[str, float], late: str, reason: str
) -> None:
    async def story() -> None:
        desk = Desk(bot, Bounds(**given))  # type: ignore[arg-type]
        room = Room(desk)
        engine.gate.clear()
        await room.ask("a1", "b1")
        await asyncio.wait({room.tasks[late]}, timeout=SOON)
        error = room.tasks.pop(late).exception()
        assert isinstance(error, LateError) and error.reason == reason
        if reason == "work":
            await until(lambda: engine.asked == ["a1", "b1"])
        engine.gate.set()
        await room.finish()
        await until(lambda: (desk.waiting, desk.running) == (0, False))

    run(story())
    assert engine.left == (["a1"] if reason == "work" else [])


def test_time_is_up_for_who_does_not_read_either(bot: RagBot, engine: Clerk) -> None:
    async def story() -> None:
        engine.gate.clear()
        slow = Desk(bot, Bounds(limit=0.05)).ask(question("a1"), visitor="a")
        await slow.__anext__()
        await until(lambda: engine.left == ["a1"])
        with pytest.raises(LateError):
            async for _ in slow:
                pass

    run(story())


# --- other work -----------------------------------------------------------------------------------


def test_other_work_takes_its_turn(bot: RagBot, engine: Clerk) -> None:
    async def story() -> int:
        desk = Desk(bot)
        room = Room(desk)
        engine.gate.clear()
        await room.ask("a1", "b1")
        seen: list[list[str]] = []

        def job(cancel: threading.Event) -> int:
            seen.append(list(engine.asked))
            return threading.get_ident()

        work = asyncio.create_task(desk.work("c", job))
        await asyncio.sleep(0.005)
        await room.ask("d1")
        engine.gate.set()
        await room.finish()
        thread = await work
        assert seen == [["a1", "b1"]] and engine.asked == ["a1", "b1", "d1"]
        return thread

    assert run(story()) != threading.get_ident()


@pytest.mark.parametrize("error", [ModelError("no model"), ValueError("a bug")])
def test_what_work_raises_is_raised(bot: RagBot, error: Exception) -> None:
    def job(cancel: threading.Event) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(Desk(bot).work("a", job))
    assert caught.value is error


@pytest.mark.parametrize("how", ["leave", "cancel", "late"])
def test_work_is_told_to_stop(bot: RagBot, how: str) -> None:
    started, stopped = threading.Event(), threading.Event()

    def job(cancel: threading.Event) -> None:
        started.set()
        assert cancel.wait(SOON)
        stopped.set()

    async def story() -> object:
        desk = Desk(bot)
        limit = 0.05 if how == "late" else 60.0
        task = asyncio.create_task(desk.work("a", job, limit=limit))
        await until(started.is_set)
        if how == "leave":
            desk.leave("a")
        elif how == "cancel":
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await until(stopped.is_set)
        return outcome

    expected = {"leave": LeftError, "cancel": asyncio.CancelledError, "late": LateError}
    assert isinstance(run(story()), expected[how])


def test_long_work_gives_way_to_questions(bot: RagBot, engine: Clerk) -> None:
    ready = threading.Event()
    done: list[str] = []

    async def story() -> None:
        desk = Desk(bot)

        def index(cancel: threading.Event) -> None:
            assert ready.wait(SOON)
            for _ in range(4):
                done.append("step")
                before = len(engine.asked)
                desk.give_way()
                done.extend(engine.asked[before:])

        work = [asyncio.create_task(desk.work("u", index))]
        await until(lambda: desk.running)
        work.append(asyncio.create_task(desk.work("v", lambda cancel: done.append("other work"))))
        await asyncio.sleep(0.005)
        room = Room(desk)
        await room.ask("a1", "b1")
        assert [room.place(name) for name in ("a1", "b1")] == [1, 2]
        desk.give_way()  # not its thread: nothing is done
        assert engine.asked == []
        ready.set()
        await room.finish()
        await asyncio.gather(*work)

    run(story())
    assert done == ["step", "a1", "step", "b1", "step", "step", "other work"]


def test_work_that_gave_way_is_still_its_visitors(bot: RagBot, engine: Clerk) -> None:
    stopped = threading.Event()

    async def story() -> None:
        desk = Desk(bot)

        def index(cancel: threading.Event) -> None:
            while not cancel.is_set():
                desk.give_way()
                time.sleep(0.001)
            stopped.set()

        work = asyncio.create_task(desk.work("u", index))
        await until(lambda: desk.running)
        engine.gate.clear()
        room = Room(desk)
        await room.ask("a1")
        await until(lambda: engine.asked)
        desk.leave("u")
        assert isinstance((await asyncio.gather(work, return_exceptions=True))[0], LeftError)
        assert not stopped.is_set()  # the other's question goes on
        engine.gate.set()
        await room.finish()
        await until(stopped.is_set)

    run(story())


# --- loops, threads, leaks ------------------------------------------------------------------------


def test_one_desk_serves_several_loops_at_once(bot: RagBot, engine: Clerk) -> None:
    desk = Desk(bot, Bounds(per_visitor=9))
    finished: list[str] = []

    def visit(letter: str) -> None:
        async def story() -> None:
            room = Room(desk)
            await room.ask(*(f"{letter}{number}" for number in range(4)))
            await room.finish()
            finished.extend(n for n, told in room.told.items() if isinstance(told[-1], Finished))

        run(story())

    threads = [threading.Thread(target=visit, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * SOON)
    assert len(finished) == len(engine.asked) == 16


def test_a_loop_that_was_closed_under_a_question_stops_it(bot: RagBot, engine: Clerk) -> None:
    desk = Desk(bot)
    engine.gate.clear()
    loop = asyncio.new_event_loop()
    events = desk.ask(question("a1"), visitor="a")
    loop.run_until_complete(events.__anext__())
    loop.close()  # without closing what was read on it
    engine.gate.set()

    async def story() -> Room:
        room = Room(desk)
        await room.ask("b1")
        await room.finish()
        return room

    assert isinstance(run(story()).told["b1"][-1], Finished)
    with pytest.raises(StopIteration):  # it can be closed even so
        events.aclose().send(None)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_left_behind(bot: RagBot, engine: Clerk, seed: int) -> None:
    luck = random.Random(seed)
    desk = Desk(bot, Bounds(room=200, per_visitor=50))
    engines = set(threading.enumerate())

    async def visit(number: int, leaves_after: int | None) -> str:
        events = desk.ask(question(f"a{number}"), visitor=str(number % 7))
        await asyncio.sleep(luck.random() / 20)
        seen = 0
        async for event in events:
            seen += 1
            if seen == leaves_after:
                how = luck.random()
                if how < 0.3:
                    await events.aclose()
                elif how < 0.4:
                    desk.leave(str(number % 7))
                return "left"
            if isinstance(event, Finished):
                return "finished"
        return "ended"

    async def story() -> None:
        before = asyncio.all_tasks()
        asking = [
            asyncio.create_task(visit(number, luck.randint(1, 4) if number % 2 else None))
            for number in range(200)
        ]
        for task in luck.sample(asking, 20):
            await asyncio.sleep(0.001)
            task.cancel()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert not [one for one in outcomes if isinstance(one, Exception)]
        assert {"left", "finished"} <= set(map(str, outcomes))
        await until(lambda: not desk.running)
        gc.collect()
        await until(lambda: asyncio.all_tasks() == before)
        assert (desk.waiting, desk.running) == (0, False)

    run(story())
    end = time.monotonic() + SOON
    while set(threading.enumerate()) - engines and time.monotonic() < end:
        time.sleep(0.005)
    assert set(threading.enumerate()) <= engines
