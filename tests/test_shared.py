"""What several servers share: ratings and visitors' documents, in a file or on PostgreSQL.

RAGBOT_TEST_POSTGRES is the URL of a database of nobody else's; its tables are dropped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.database import Database
from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import RatedQuestion, load_questions, source
from ragbot.web.feedback import Feedback
from ragbot.web.own.shelf import Shelf, StaleError
from ragbot.web.own.uploads import Uploads
from ragbot.web.page.records import record
from tests.fakes import FakeEncoder, FakeEngine, reading
from tests.served import SOON
from tests.test_feedback import ANSWER, rated
from tests.test_uploads import BRIDGE, QUIET, SHOP, Clock, silent

POSTGRES = os.environ.get("RAGBOT_TEST_POSTGRES", "")
VISITOR, TURN = "visitor-of-this-test", "turn-of-this-test-0001"
BOTH = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(not POSTGRES, reason="RAGBOT_TEST_POSTGRES names no server"),
    ),
]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in which nothing is yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.sqlite'}"
    with Database(POSTGRES).writing("tests") as connection:
        connection.execute(text("DROP TABLE IF EXISTS ratings, own_documents_1"))
    return POSTGRES


# --- ratings ---------------------------------------------------------------------------------


def ratings(url: str) -> dict[str, str]:
    questions = load_questions(url)
    assert all(isinstance(question, RatedQuestion) for question in questions)
    return {question.id: question.type for question in questions}


def test_what_one_keeps_the_other_goes_on_with(url: str) -> None:
    one, other = Feedback(url), Feedback(url)
    one.record(rated(remark="'); DROP TABLE ratings; --"))
    other.record(rated("a2"))
    other.record(rated(verdict="down"))
    assert ratings(url) == {"a1": "down", "a2": "up"}
    one.withdraw("a2")
    assert ratings(url) == {"a1": "down"}
    (question,) = load_questions(url)
    assert question.must_not_include == ("橋長430米。 由海法人設計。",)


def test_many_begin_at_once(url: str) -> None:
    failed: list[BaseException] = []
    together = threading.Barrier(6)

    def begin(number: int) -> None:
        try:
            together.wait(SOON)
            Feedback(url).record(rated(f"a{number}"))
            Feedback(url).record(rated("shared"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert len(ratings(url)) == 7


def test_another_programs_ratings_are_left_alone(url: str) -> None:
    with Database(url).writing("tests") as connection:
        connection.execute(text("CREATE TABLE ratings (film TEXT)"))
    with pytest.raises(StoreError, match="another program's"):
        Feedback(url)
    with pytest.raises(ConfigError, match="holds no ratings"):
        load_questions(url)


@pytest.mark.skipif(not POSTGRES, reason="RAGBOT_TEST_POSTGRES names no server")
def test_a_newer_form_on_a_server_is_left_alone() -> None:
    with Database(POSTGRES).writing("tests") as connection:
        connection.execute(text("DROP TABLE IF EXISTS ratings"))
    Feedback(POSTGRES)
    with Database(POSTGRES).writing("tests") as connection:
        connection.execute(text("COMMENT ON TABLE ratings IS 'ragbot ratings 2'"))
    with pytest.raises(StoreError, match="of form 2, this ragbot writes 1"):
        Feedback(POSTGRES)
    with pytest.raises(ConfigError, match="of form 2, this ragbot reads 1"):
        load_questions(POSTGRES)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:secret@h/d", "'mysql' can be shared: use postgresql://"),
        ("sqlite://", "'sqlite' can be shared"),
        ("postgresql+nothing://u:secret@h/d", "use postgresql://"),
        ("nonsense ://secret", "cannot be read: write postgresql://"),
        ("postgresql://u:secret@h:port/d", "cannot be read: write postgresql://"),
    ],
)
def test_a_bad_url_is_one_sentence_without_its_password(url: str, said: str) -> None:
    for use in (Feedback, load_questions):
        with pytest.raises(ConfigError, match=said) as caught:
            use(url)
        assert "secret" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("psycopg")
    url = "postgresql://u:secret@127.0.0.1:9/d"
    began = time.monotonic()
    with pytest.raises(StoreError, match="see that the server runs") as kept:
        Feedback(url)
    with pytest.raises(ConfigError, match="see that the server runs") as read:
        load_questions(url)
    assert time.monotonic() - began < SOON
    for caught in (kept, read):
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
        assert "u:***@127.0.0.1:9/d" in str(caught.value)


def test_a_set_is_called_by_what_is_no_secret(tmp_path: Path) -> None:
    assert source("postgresql://u:secret@h/ratings").name == "ratings"
    assert source("sqlite:////a/b.sqlite").name == source("/a/b.sqlite").name == "b.sqlite"
    assert source("a/b.jsonl") == Path("a/b.jsonl")
    assert "secret" not in repr(load_config({"database": "postgresql://u:secret@h/d"}))


# --- visitors' documents ---------------------------------------------------------------------


class Copies:
    """Two servers' uploads over one database."""

    def __init__(self, bot: RagBot, url: str, folder: Path):
        self.folder, self.clock, self.local = folder, Clock(), Clock()
        self.shelf = Shelf(Database(url), clock=self.clock)
        self.one, self.other = (
            Uploads(bot, folder / name, shelf=self.shelf, clock=self.local) for name in "ab"
        )

    def add(self, uploads: Uploads, name: str, data: str, visitor: str = VISITOR) -> None:
        path = self.folder / "given"
        path.write_text(data, encoding="utf-8")
        uploads.add(visitor, [(name, path)], silent, QUIET)


@pytest.fixture
def copies(url: str, make_bot: Callable[..., RagBot], tmp_path: Path) -> Iterator[Copies]:
    Feedback(url)  # as a server begins: the database is known as ours
    made = Copies(make_bot("公司在台北，有四十個員工。"), url, tmp_path)
    yield made
    made.one.close()
    made.other.close()


def test_each_copy_answers_from_what_was_added_at_another(
    copies: Copies, engine: FakeEngine, encoder: FakeEncoder
) -> None:
    copies.add(copies.one, "橋.txt", BRIDGE)
    encoder.encoded.clear()
    bot = copies.other.bot(VISITOR)
    assert bot is not None and copies.other.bot("somebody-else-here") is None
    engine.enqueue(reading(BRIDGE[:20], "青山橋長430公尺。"))
    answer = bot.ask("青山橋有多長？")
    assert [citation.doc for citation in answer.citations] == ["橋.txt"]
    assert not encoder.encoded, "its vectors came with it"
    copies.add(copies.other, "shop.txt", SHOP)
    assert copies.one.names(VISITOR) == ("橋.txt", "shop.txt")
    copies.one.remove(VISITOR, "橋.txt")
    assert copies.other.names(VISITOR) == ("shop.txt",)
    copies.other.remove(VISITOR, "shop.txt")
    assert copies.one.names(VISITOR) == () and copies.one.bot(VISITOR) is None


def test_it_outlives_its_copy_of_the_server(copies: Copies) -> None:
    copies.add(copies.one, "橋.txt", BRIDGE)
    copies.one.close()
    assert copies.other.names(VISITOR) == ("橋.txt",)
    copies.other.forget(VISITOR)
    assert copies.shelf.mark(VISITOR) == ""


def test_nobody_changes_what_he_has_not_seen(copies: Copies, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = copies.shelf.keep(VISITOR, folder, "")
    (folder / "a").write_text("2")
    copies.shelf.keep(VISITOR, folder, first)
    (folder / "a").write_text("3")
    for stale in (first, ""):
        with pytest.raises(StaleError):
            copies.shelf.keep(VISITOR, folder, stale)
    copies.shelf.fetch(VISITOR, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "a").read_text() == "2"


def test_what_nobody_uses_goes_wherever_it_was_added(copies: Copies) -> None:
    for visitor in ("visitor-who-is-gone-", VISITOR):
        copies.add(copies.one, "橋.txt", BRIDGE, visitor)
    copies.one.close()
    for minute in (20, 40):  # one of them is there, at the other copy
        copies.clock.now = copies.local.now = 60.0 * minute
        assert copies.other.names(VISITOR) == ("橋.txt",)
        copies.other.touch(VISITOR)
        copies.other.sweep()
    assert copies.shelf.mark("visitor-who-is-gone-") == ""
    copies.clock.now = copies.local.now = 60.0 * 80
    copies.other.sweep()
    assert copies.shelf.mark(VISITOR) == "" and copies.other.names(VISITOR) == ()


def test_who_reads_the_database_cannot_pass_for_a_visitor(copies: Copies, url: str) -> None:
    copies.add(copies.one, "橋.txt", BRIDGE)
    with Database(url).reading() as connection:
        (row,) = connection.execute(text("SELECT * FROM own_documents_1")).mappings()
    assert VISITOR not in repr(dict(row))


def test_a_database_that_is_away_costs_nobody_what_is_here(
    copies: Copies, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("the server is not ours to stop")
    copies.add(copies.one, "橋.txt", BRIDGE)
    file = Database(url).file
    assert file
    file.write_bytes(b"no database any more, but text of some length")
    assert copies.one.names(VISITOR) == ("橋.txt",)
    assert "cannot be read" in caplog.text
    with pytest.raises(StoreError, match="damaged"):
        copies.one.sweep()


# --- two servers -----------------------------------------------------------------------------

SERVING = """
    import sys
    from pathlib import Path
    from ragbot.bot import RagBot
    from ragbot.chunking import chunk
    from ragbot.config import load_config
    from ragbot.corpus import load_corpus
    from ragbot.faiss_index import build_index
    from ragbot.retriever import Retriever
    from ragbot.web import server
    from ragbot.web.guard import Rules
    from ragbot.web.observe import Book
    from tests.fakes import FakeEncoder
    from tests.served import TEXT, Clerk

    Path("doc.txt").write_text(TEXT, encoding="utf-8")
    encoder, engine = FakeEncoder(), Clerk()
    documents = load_corpus(Path("doc.txt")).documents
    chunks = [c for d in documents for c in chunk(d, limit=200, count=encoder.count_tokens)]
    bot = RagBot(
        Retriever(build_index(Path("index"), documents, chunks, encoder), encoder), lambda: engine
    )
    engine.refuse()
    with server._site(bot, load_config(), Book(), Rules(rate=0)) as site:
        server.run(site, server.listen("127.0.0.1", 0))
"""


class Served:
    """A server in a process of its own, and what its page asks of it."""

    def __init__(self, process: subprocess.Popen[str], address: str):
        self.process, self.address = process, address
        self.http = httpx.Client(timeout=SOON)  # keeps cookies, as a browser does
        config = self.http.get(f"{address}/config").json()
        self._view = next(one["id"] for one in config["components"] if one["type"] == "html")

    def do(self, what: str, **fields: Any) -> dict[str, Any]:
        data = {"do": what, "visitor": VISITOR, "language": "zh-Hant", **fields}
        body = {
            "data": data,
            "component_id": self._view,
            "fn_name": "serve",
            "session_hash": "one",
        }
        address = f"{self.address}/gradio_api/component_server"
        reply: dict[str, Any] = self.http.post(address, json=body).json()
        assert "error" not in reply, reply
        return reply

    def rate(self, verdict: str | None) -> None:
        self.do("rate", turn=TURN, answer=record(ANSWER), verdict=verdict)

    def add(self, name: str, data: str) -> dict[str, Any]:
        sent = {"files": (name, data.encode())}
        (path,) = self.http.post(f"{self.address}/gradio_api/upload", files=sent).json()
        return self.do("add", files=[{"name": name, "stored": path}])


@contextmanager
def serving(folder: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    settings = {"RAGBOT_CACHE": str(folder), "RAGBOT_DATABASE": url}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVING)],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> Served:
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("ragbot is at http://127.0.0.1:"), process.communicate()[1]
    return Served(process, line.split()[3].rstrip(";"))


@pytest.mark.apart
def test_two_servers_are_one_to_their_visitors(url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        begun = [stack.enter_context(serving(tmp_path / name, url)) for name in ("1", "2")]
        one, other = map(ready, begun)
        one.rate("up")
        assert ratings(url) == {TURN: "up"}
        other.rate("down")
        assert ratings(url) == {TURN: "down"}
        assert one.add("橋.txt", BRIDGE) == {"names": ["橋.txt"]}
        assert other.do("begin")["names"] == ["橋.txt"]
        one.process.kill()
        one.process.wait()
        opened = other.do("open", scope="mine", doc="橋.txt")
        assert BRIDGE[:10] in str(opened)
        other.rate(None)
        with pytest.raises(ConfigError, match="no questions"):
            load_questions(url)
