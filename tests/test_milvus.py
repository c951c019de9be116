"""What a Milvus server adds: it may be away, half set up, come back, or be written by others.

Milvus Lite, in a process of its own, speaks the server's protocol: it is the server here.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ragbot.address import Milvus
from ragbot.bot import RagBot
from ragbot.chat import Chat
from ragbot.encoder import Encoder
from ragbot.errors import ConfigError, StoreError, UnreachableError
from ragbot.index import Manifest, row_texts
from ragbot.milvus.build import Desk, Draft, abandon, begin, build_milvus, feed, finish
from ragbot.milvus.client import connect
from ragbot.milvus.facts import count
from ragbot.milvus.index import MilvusIndex, open_milvus
from ragbot.milvus.rows import Row
from ragbot.phrases import OUT_OF_REACH
from ragbot.retriever import Retriever
from ragbot.vectors import short
from ragbot.web.page.failures import failure
from ragbot.words import words
from tests.fakes import FakeEncoder, FakeEngine, nothing
from tests.served import site
from tests.test_index_contract import TEXTS, content

pytestmark = [pytest.mark.apart, pytest.mark.usefixtures("hurried_milvus")]
QUESTION = "華為組建了什麼軍團？"
PATIENCE = 180.0  # seconds, on a busy machine


class Server:
    """Milvus Lite as a server, which can be killed and started again at the same port."""

    def __init__(self, folder: Path):
        self.folder = folder
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.port = listener.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def place(self, name: str) -> Milvus:
        return Milvus(name, uri=f"http://127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "data")
    yield server
    server.kill()


@pytest.fixture
def desk(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    name = re.sub(r"\W", "_", request.node.name)[:60]
    return Desk(server.place(name), tmp_path / "desk")


def built(desk: Desk, encoder: Encoder, *texts: str) -> MilvusIndex:
    return build_milvus(desk, *content(*(texts or TEXTS)), encoder)


# --- a server that is not there, or is something else --------------------------------------------


def test_an_unreachable_server_is_told_of_in_one_sentence() -> None:
    environment = os.environ | {"RAGBOT_INDEX": "milvus://127.0.0.1:1/law"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ragbot", "doctor"],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Milvus at milvus://127.0.0.1:1/law" in re.sub(r"\s+", " ", done.stdout)
    with pytest.raises(
        UnreachableError, match=r"^Milvus at milvus://127.0.0.1:1/law [^\n]*--index\.$"
    ):
        open_milvus(Milvus("law", uri="http://127.0.0.1:1"), "fake-1")
    assert time.monotonic() - started < PATIENCE
    assert "Traceback" not in done.stderr


def test_what_listens_but_is_no_milvus_is_given_up_soon() -> None:
    import pymilvus  # noqa: F401  # takes seconds by itself

    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        started = time.monotonic()
        with pytest.raises(UnreachableError):
            open_milvus(Milvus("law", uri=f"http://127.0.0.1:{silent.getsockname()[1]}"), "x")
        assert time.monotonic() - started < 20


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r'pip install "ragbot\[milvus\]"'):
        connect(Milvus("law", uri="http://127.0.0.1:1"))


def test_a_collection_of_something_else_stays_untouched(desk: Desk, encoder: FakeEncoder) -> None:
    client = connect(desk.place)
    client.create_collection(desk.place.name, dimension=4)
    with pytest.raises(StoreError, match="something else"):
        open_milvus(desk.place, "fake-1")
    with pytest.raises(StoreError, match="something else"):
        built(desk, encoder)
    assert not encoder.encoded and client.has_collection(desk.place.name)


def test_one_program_at_a_time_opens_a_lite_database(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="open in another program"):
        open_milvus(Milvus("law", lite=server.folder), "fake-1")


# --- a server that goes away and comes back ------------------------------------------------------


def test_a_talk_goes_on_when_the_server_is_back(
    tmp_path: Path,
    encoder: FakeEncoder,
    engine: FakeEngine,
    capsys: pytest.CaptureFixture[str],
    trusting: None,
) -> None:
    server = Server(tmp_path / "data")
    try:
        index = built(Desk(server.place("law"), tmp_path / "desk"), encoder, TEXTS[0])
        bot = RagBot(Retriever(index, encoder), lambda: engine)
        chat = Chat(bot)
        server.kill()
        chat.handle(QUESTION)
        said = capsys.readouterr()
        assert OUT_OF_REACH["zh-Hant"] in said.out and "Milvus at" in said.err
        with TestClient(site(bot), "http://localhost") as client:
            reply = client.post("/v1/search", json={"query": QUESTION})
        assert reply.status_code == 503 and "milvus" not in reply.text.lower()
        server.start()
        engine.enqueue(nothing())
        asked = time.monotonic()
        while OUT_OF_REACH["zh-Hant"] in (said := capsys.readouterr()).out or not said.out:
            assert time.monotonic() - asked < PATIENCE
            chat.handle(QUESTION)
        assert "這些文件沒有提到" in said.out
    finally:
        server.kill()


def test_the_page_has_words_for_it() -> None:
    assert failure(UnreachableError("Milvus at milvus://secret:1/x …")) == {"code": "index"}


# --- other writers -------------------------------------------------------------------------------


def test_a_bot_answers_from_what_a_writer_elsewhere_has_put_in_place(
    desk: Desk, encoder: FakeEncoder, tmp_path: Path
) -> None:
    bot = RagBot(Retriever(built(desk, encoder), encoder), FakeEngine)
    assert bot.search("天氣")[0].text == "今天天氣晴朗。"
    built(replace(desk, folder=tmp_path / "elsewhere"), encoder, "今天的天氣是雨。")
    assert [hit.text for hit in bot.search("天氣")] == ["今天的天氣是雨。"]


def begun(desk: Desk, encoder: Encoder) -> Draft:
    return begin(desk.place, encoder.dimension, 5.0, desk.writer)


def test_a_writer_elsewhere_is_not_disturbed(
    desk: Desk, encoder: FakeEncoder, tmp_path: Path
) -> None:
    other = begun(replace(desk, folder=tmp_path / "elsewhere"), encoder)
    with pytest.raises(StoreError, match=r"^Another writer [^\n]*\.$"):
        built(desk, encoder)
    assert connect(desk.place).has_collection(other.name)
    abandon(other)
    assert len(built(desk, encoder).chunks) == len(TEXTS)


def test_what_a_killed_writer_began_is_removed(
    desk: Desk, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = begun(desk, encoder)
    index = built(desk, encoder)
    assert not connect(desk.place).has_collection(own.name)
    strange = begun(replace(desk, folder=tmp_path / "elsewhere"), encoder)
    monkeypatch.setattr("ragbot.milvus.build._DEAD", 0.0)
    built(desk, encoder, "新。")
    assert not connect(desk.place).has_collection(strange.name)
    assert index.current().manifest.chunks == 1


# --- feeding row by row --------------------------------------------------------------------------


def rows(encoder: FakeEncoder, *texts: str) -> list[Row]:
    return [
        Row(number, chunk, words(chunk.passage), short(encoder.passages(row_texts(chunk))))
        for number, chunk in enumerate(content(*texts)[1])
    ]


def test_rows_that_come_twice_and_in_any_order_make_the_same_index(
    desk: Desk, encoder: FakeEncoder
) -> None:
    fed = rows(encoder, *TEXTS)
    bags = [row.words for row in fed]
    draft = begin(desk.place, encoder.dimension, sum(map(len, bags)) / len(bags), desk.writer)
    feed(draft, fed[3:])
    feed(draft, fed[::-1])
    documents, chunks = content(*TEXTS)
    manifest = Manifest.of(encoder, documents, chunks, sum(len(row.vectors) for row in fed))
    finish(draft, manifest, documents, Counter(word for bag in bags for word in set(bag)))
    made = open_milvus(desk.place, encoder.fingerprint)
    assert count(connect(desk.place), desk.place, draft.name) == len(TEXTS)
    usual = built(replace(desk, place=replace(desk.place, name="usual")), FakeEncoder())
    vector = encoder.queries([QUESTION])[0]
    assert list(made.chunks) == chunks and made.manifest == usual.manifest
    assert made.search(vector, QUESTION, limit=9) == usual.search(vector, QUESTION, limit=9)


def test_half_an_index_never_takes_the_place_of_the_whole_one(
    desk: Desk, encoder: FakeEncoder
) -> None:
    before = built(desk, encoder)
    draft = begun(desk, encoder)
    feed(draft, rows(encoder, "甲。", "乙。")[:1])
    documents, chunks = content("甲。", "乙。")
    with pytest.raises(StoreError, match="1 of 2 chunks"):
        finish(draft, Manifest.of(encoder, documents, chunks, 2), documents, {})
    assert before.current() is before
    abandon(draft)
    assert list(open_milvus(desk.place, "fake-1").chunks) == content(*TEXTS)[1]


def test_a_writer_that_fails_leaves_nothing(
    desk: Desk, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragbot.milvus.build.finish", failing)
    with pytest.raises(KeyboardInterrupt):
        built(desk, encoder)
    names = connect(desk.place).list_collections()
    assert not [name for name in names if name.startswith(desk.place.name)]
