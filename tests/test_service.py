"""The page's short requests: what they are answered with, and what they cannot get at."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragbot.bot import RagBot
from ragbot.errors import StoreError
from ragbot.types import Answer, Progress
from ragbot.web.desk import Desk
from ragbot.web.feedback import Feedback
from ragbot.web.own.uploads import Uploads
from ragbot.web.page import records
from ragbot.web.page.service import Service
from ragbot.web.page.visitors import Visitors
from ragbot.web.starts import Start
from tests.fakes import FakeEngine, reading

CORPS = "華為3月宣告組建醫療衛生軍團。"
VISITOR, TURN = "visitor-of-this-test", "turn-of-this-test-0001"
SOON = 30.0  # seconds within which what is to happen has happened, on any machine


class Counter:
    """A service and what is behind it; `do` makes a request of a visitor's page."""

    def __init__(self, bot: RagBot, folder: Path, kind: type[Uploads] = Uploads):
        self.folder, self.incoming = folder, folder / "incoming"
        self.incoming.mkdir()
        self.desk = Desk(bot)
        self.visitors = Visitors(self.desk.leave)
        self.uploads = kind(bot, folder / "uploads")
        starts = [Start("華為組建了什麼？", "zh-Hant", "doc1.txt", 1)]
        feedback = Feedback(folder / "ratings.sqlite")
        service = Service(bot, self.uploads, feedback, lambda: starts, self.incoming)
        self.serve = service.at(self.desk, self.visitors)

    async def request(self, do: str, **fields: Any) -> dict[str, Any]:
        return await self.raw({"do": do, "visitor": VISITOR, "language": "en"} | fields)

    async def raw(self, data: Any) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(json.dumps(await self.serve(data)))  # as it travels
        return reply

    def do(self, do: str, **fields: Any) -> dict[str, Any]:
        return asyncio.run(asyncio.wait_for(self.request(do, **fields), SOON))

    def send(self, name: str, text: str) -> dict[str, str]:
        path = self.incoming / f"sent-{time.monotonic_ns()}"
        path.write_text(text, encoding="utf-8")
        return {"name": name, "stored": str(path)}


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(f"{CORPS}\n百川智能投向醫療。")


@pytest.fixture
def counter(bot: RagBot, tmp_path: Path) -> Counter:
    return Counter(bot, tmp_path)


@pytest.fixture
def answer(bot: RagBot, engine: FakeEngine) -> Answer:
    engine.enqueue(reading(CORPS, "華為在3月宣告組建醫療衛生軍團。"))
    return bot.ask("華為的軍團？")


def test_a_page_begins_with_questions_limits_and_its_documents(counter: Counter) -> None:
    reply = counter.do("begin")
    (start,) = reply["starts"]
    assert start == {"question": "華為組建了什麼？", "language": "zh-Hant", "doc": "doc1.txt"}
    assert reply["names"] == [] and reply["limits"]["files"] == 5
    assert counter.do("alive") == {"names": []}


def test_kept_turns_are_rendered_again(counter: Counter, answer: Answer) -> None:
    kept = json.loads(json.dumps(records.record(answer)))
    turns = [
        {"scope": "site", "answer": kept, "said": ""},
        {"scope": "mine", "answer": kept, "said": ""},
        {"scope": "site", "answer": None, "said": "到此為止<b>"},
    ]
    site, mine, stopped = counter.do("show", turns=turns)["shown"]
    assert 'data-doc="doc1.txt"' in site["html"] and CORPS in site["plain"]
    assert "your document" in mine["html"] and "your document" not in site["html"]
    assert "到此為止&lt;b&gt;" in stopped["html"]


def test_an_answer_survives_the_browser(answer: Answer) -> None:
    kept = json.loads(json.dumps(records.record(answer)))
    again = records.Kept.model_validate({"answer": kept}).answer
    assert again == answer


def test_a_document_opens_at_a_sentence(counter: Counter) -> None:
    reply = counter.do("open", doc="doc1.txt", start=0, end=len(CORPS), quote=CORPS)
    assert f"</span>{CORPS}<span" in reply["html"] and reply["title"] == "doc1"
    assert "no longer here" in counter.do("open", doc="../secret", quote="x")["html"]
    assert "no longer here" in counter.do("open", doc="doc1.txt", scope="mine", quote="x")["html"]


def test_documents_are_listed_to_choose_from(
    make_bot: Callable[..., RagBot], tmp_path: Path
) -> None:
    counter = Counter(make_bot(CORPS, *("別的事。",) * 210), tmp_path)
    whole, some = counter.do("list"), counter.do("list", like="DOC21")
    assert (whole["total"], len(whole["names"])) == (211, 200)
    assert some == {"names": ["doc21.txt", "doc210.txt", "doc211.txt"], "total": 3}
    assert counter.do("list", scope="mine") == {"names": [], "total": 0}
    counter.do("add", files=[counter.send("<b>.txt", "貓。"), counter.send("b.txt", "狗。")])
    assert counter.do("list", scope="mine")["total"] == 2


@pytest.mark.parametrize(("form", "said"), [("markdown", "## 華為的軍團？"), ("json", '"quote"')])
def test_a_conversation_is_saved(counter: Counter, answer: Answer, form: str, said: str) -> None:
    turns = [{"answer": records.record(answer)}, {"answer": None, "said": "stopped"}]
    assert said in counter.do("save", form=form, turns=turns)["text"]


def test_a_rating_is_recorded_and_taken_back(counter: Counter, answer: Answer) -> None:
    def rows() -> list[tuple[str, str]]:
        with sqlite3.connect(counter.folder / "ratings.sqlite") as file:
            return file.execute("SELECT verdict, remark FROM ratings").fetchall()

    rated = {"turn": TURN, "answer": records.record(answer), "history": [["a", "b"]]}
    assert counter.do("rate", **rated, verdict="down", remark="少了年份") == {}
    assert rows() == [("down", "少了年份")]
    assert counter.do("rate", **rated, verdict=None) == {}
    assert rows() == []


def test_stopping_needs_no_more_than_the_turn(counter: Counter) -> None:
    async def stop() -> bool:
        unwanted = counter.visitors.begin("session", VISITOR, TURN)
        assert await counter.request("stop", turn=TURN) == {}
        return unwanted.is_set()

    assert asyncio.run(stop())


# --- own documents ---------------------------------------------------------------------------


def test_a_file_is_added_asked_about_and_removed(counter: Counter) -> None:
    sent = counter.send("筆記.txt", "筆記裡的貓叫小黑。")
    assert counter.do("add", files=[sent]) == {"names": ["筆記.txt"]}
    assert list(counter.incoming.iterdir()) == [], "what was sent is not kept twice"
    shown = counter.do("open", scope="mine", doc="筆記.txt", end=9, quote="筆記裡的貓叫小黑。")
    assert "<mark>" in shown["html"]
    assert counter.do("alive", visitor="another-visitor-here") == {"names": []}
    assert counter.do("remove", name="筆記.txt") == {"names": []}


@pytest.mark.parametrize("where", ["outside", "link", "above", "missing", "folder"])
def test_only_files_that_were_sent_are_taken(counter: Counter, where: str) -> None:
    secret = counter.folder / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (counter.incoming / "link").symlink_to(secret)
    stored = {
        "outside": secret,
        "link": counter.incoming / "link",
        "above": counter.incoming / ".." / "secret.txt",
        "missing": counter.incoming / "nothing",
        "folder": counter.incoming,
    }[where]
    reply = counter.do("add", files=[{"name": "a.txt", "stored": str(stored)}])
    assert reply == {"error": {"code": "unreadable", "name": "a.txt"}}
    assert secret.exists()


def test_a_refused_file_is_named_and_nothing_stays(counter: Counter) -> None:
    reply = counter.do("add", files=[counter.send("x.exe", "x")])
    assert reply == {"error": {"code": "kind", "name": "x.exe"}}
    assert list(counter.incoming.iterdir()) == [] and counter.do("alive") == {"names": []}


class Slow(Uploads):
    """Comes to a quarter of the work, and no further."""

    def add(
        self, visitor: str, files: Sequence[Any], progress: Progress, cancel: threading.Event
    ) -> None:
        progress(1, 4)
        cancel.wait(SOON)


def test_adding_tells_how_far_it_is_and_can_be_given_up(bot: RagBot, tmp_path: Path) -> None:
    counter = Counter(bot, tmp_path, Slow)

    async def give_up() -> tuple[dict[str, Any], dict[str, Any]]:
        adding = asyncio.ensure_future(counter.request("add", files=[counter.send("a.txt", "a")]))
        while (told := await counter.request("progress"))["percent"] is None:
            await asyncio.sleep(0.005)
        await counter.request("cancel")
        return told, await adding

    told, reply = asyncio.run(asyncio.wait_for(give_up(), SOON))
    assert told == {"percent": 25}
    assert reply == {"error": {"code": "stopped", "name": ""}}
    assert counter.do("progress") == {"percent": None}


# --- what does not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"do": "nothing"}, "failed"),
        ({"do": "begin", "visitor": "short"}, "failed"),
        ({"do": "begin", "visitor": "a/../../../../b-long-enough"}, "failed"),
        ({"do": "begin", "language": "fr"}, "failed"),
        ({"do": "open", "doc": 7}, "failed"),
        ({"do": "open", "doc": "a", "part": "all"}, "failed"),
        ({"do": "open", "doc": "a" * 1001}, "large"),
        ({"do": "list", "like": "a" * 1001}, "large"),
        ({"do": "show", "turns": [{}] * 201}, "large"),
        ({"do": "show", "turns": [{"answer": {"answer": "x"}}]}, "failed"),
        ({"do": "save", "turns": [], "form": "exe"}, "failed"),
        ({"do": "add", "files": []}, "failed"),
        ({"do": "rate", "turn": TURN, "answer": None, "verdict": "up"}, "failed"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    counter: Counter, fields: dict[str, Any], code: str
) -> None:
    assert counter.do(**fields) == {"error": {"code": code}}


@pytest.mark.parametrize("data", [None, 7, "x", [], {}, {"do": {}}])
def test_anything_may_be_sent(counter: Counter, data: Any) -> None:
    assert asyncio.run(counter.raw(data)) == {"error": {"code": "failed"}}


class Full(Uploads):
    """Fails as no one foresaw."""

    def names(self, visitor: str) -> tuple[str, ...]:
        raise StoreError("/secret/path is full")


def test_an_error_leaves_no_trace(bot: RagBot, tmp_path: Path) -> None:
    assert Counter(bot, tmp_path, Full).do("begin") == {"error": {"code": "failed"}}
