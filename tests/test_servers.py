"""Several real servers behind one engine: one is killed, hangs, refuses, comes back."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.doctor import examine
from ragbot.engines import Engine, connect_engine, server_addresses, servers
from ragbot.errors import ConfigError, ModelError
from ragbot.index import Index
from ragbot.retriever import Retriever
from ragbot.types import Message
from ragbot.web.desk import Bounds, Desk, Event, Finished
from ragbot.workspace import questions_at_once
from tests.conftest import ARTICLE
from tests.fakes import FakeEncoder, reading
from tests.served import ANSWER, QUESTION, TEXT, site, until
from tests.toy import write_toy_model

ASK = [Message("user", "ab" * 20)]
FORM = 'root ::= "abc" [a-z]{1500} [a-z]{1497}'  # some seconds of writing for a toy
REST = 0.3  # seconds of a server that failed, here

# A process that serves a GGUF file by llama.cpp.
SERVING = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.ui, params.verbosity = 8192, False, -1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
print("there", flush=True)
time.sleep(600)
"""


class LlamaServer:
    """A real server in a process of its own, at an address that outlives it."""

    def __init__(self, model: Path):
        self._model = model
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", SERVING, str(self._model), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout and self._process.stdout.readline() == b"there\n"
        self._process.stdout.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def written(self) -> int:
        """Tokens written so far of the reply that it is at, 0 when it is at none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/slots") as reply:
            slots = json.load(reply)
        return sum(slot["next_token"][0]["n_decoded"] for slot in slots if slot["is_processing"])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.gguf"
    return write_toy_model(path, ["<|im_start|>", "<|im_end|>"])


@pytest.fixture
def pair(toy: Path) -> Iterator[tuple[LlamaServer, LlamaServer]]:
    both = LlamaServer(toy), LlamaServer(toy)
    yield both
    for one in both:
        one.kill()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test does not wait as long as a reader does."""
    monkeypatch.setattr(servers, "_REST_SECONDS", REST)


def over(*urls: str, timeout: float = 0.0) -> Engine:
    return connect_engine("m", ",".join(urls), "", timeout=timeout)


def asked(engine: Engine, form: str = "", cancel: threading.Event | None = None) -> str:
    return "".join(engine.stream(ASK, max_tokens=3000, form=form, cancel=cancel))


# --- llama.cpp's server, killed ------------------------------------------------------------------


@pytest.mark.apart
def test_a_server_killed_in_mid_answer_is_stood_in_for(
    pair: tuple[LlamaServer, LlamaServer], caplog: pytest.LogCaptureFixture
) -> None:
    """And when it is back, it is asked again."""
    first, second = pair
    engine = over(first.url, second.url)
    with ThreadPoolExecutor() as pool:
        expected = pool.submit(asked, over(second.url), FORM)
        answer = pool.submit(asked, engine, FORM)
        until(lambda: first.written > 50)
        first.kill()
        assert answer.result() == expected.result() and len(answer.result()) == 3000
    (said,) = [record.getMessage() for record in caplog.records]
    assert "broke off (the connection was lost)" in said and f"{second.url} stood in" in said
    first.start()
    time.sleep(REST)
    second.kill()
    assert asked(engine, 'root ::= "abc"') == "abc"
    second.start()


def test_who_leaves_frees_the_server(pair: tuple[LlamaServer, LlamaServer]) -> None:
    first, second = pair
    engine, cancel = over(first.url, second.url), threading.Event()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(asked, engine, FORM, cancel)
        until(lambda: first.written > 50)
        cancel.set()
        answer.result(timeout=1.0)
        until(lambda: not first.written)
        assert not second.written


def test_a_prompt_that_no_server_can_take_is_asked_of_one_alone(
    pair: tuple[LlamaServer, LlamaServer],
) -> None:
    engine = over(pair[0].url, pair[1].url)
    with pytest.raises(ModelError, match=r"refused \(400") as caught:
        list(engine.stream([Message("user", "x" * 9000)], max_tokens=4))
    assert pair[0].url in str(caught.value) and pair[1].url not in str(caught.value)
    assert asked(engine, 'root ::= "abc"') == "abc"


# --- servers that do as they are told ------------------------------------------------------------


class Scripted(ThreadingHTTPServer):
    """Writes `text`, a character at a time, once its gate is open; a status other than 200 instead."""

    daemon_threads = True

    def __init__(self, text: str = "一", status: int = 200):
        super().__init__(("127.0.0.1", 0), _Scribe)
        self.text, self.status = text, status
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.prompts: list[Any] = []
        self.heads: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        self._connections.append(super().get_request()[0])
        return self._connections[-1], ("", 0)

    def lose(self) -> None:
        """Break off all that it is at, and be gone."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Scribe(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self._begin("application/json")
        if self.server.status == 200:
            self.wfile.write(b'{"object": "list", "data": []}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.prompts.append(body["messages"])
        self.server.heads.append(self.headers)
        self._begin("text/event-stream")
        if self.server.status != 200:
            return
        with suppress(OSError):
            for character in self.server.text:
                self._send(character, None)
                self.server.gate.wait()
            self._send("", "stop")
            self.wfile.write(b"data: [DONE]\n\n")

    def _begin(self, kind: str) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _send(self, text: str, end: str | None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": end}
        part = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        self.wfile.write(f"data: {json.dumps(part | {'choices': [choice]})}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    running: list[Scripted] = []

    def start(text: str = "一", status: int = 200) -> Scripted:
        running.append(Scripted(text, status))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for one in running:
        one.gate.set()
        one.shutdown()
        one.server_close()


@contextmanager
def deaf() -> Iterator[str]:
    """The address of something that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def closed() -> str:
    """An address at which nothing is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_who_hangs_is_waited_for_once(scripted: Callable[..., Scripted]) -> None:
    well = scripted()
    with deaf() as silent:
        engine = over(silent, well.url, timeout=0.5)
        start = time.perf_counter()
        assert asked(engine) == "一" and time.perf_counter() - start > 0.5
        start = time.perf_counter()
        assert asked(engine) == "一" and time.perf_counter() - start < 0.5


def test_who_stops_in_the_middle_is_waited_for_so_long(
    scripted: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "LIMITS", replace(servers.LIMITS, further=0.3))
    stuck, well = scripted("一二三"), scripted("一二三")
    stuck.gate.clear()
    assert asked(over(stuck.url, well.url)) == "一二三"
    assert len(stuck.prompts) == len(well.prompts) == 1


def test_who_is_not_well_again_is_not_asked(scripted: Callable[..., Scripted]) -> None:
    ill, well = scripted(status=503), scripted()
    engine = over(ill.url, well.url)
    for _ in range(3):
        assert asked(engine) == "一"
        time.sleep(REST)
    assert (len(ill.prompts), len(well.prompts)) == (1, 3)
    ill.status = 200
    until(lambda: asked(engine) == "一" and len(ill.prompts) > 1)


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_who_refuses_is_stood_in_for(scripted: Callable[..., Scripted], status: int) -> None:
    assert asked(over(scripted(status=status).url, scripted().url)) == "一"


def test_prompts_go_where_the_fewest_are_at_work(scripted: Callable[..., Scripted]) -> None:
    three = [scripted() for _ in range(3)]
    engine = over(*(one.url for one in three))
    for one in three:
        one.gate.clear()
    with ThreadPoolExecutor(9) as pool:
        answers = [pool.submit(asked, engine) for _ in range(9)]
        until(lambda: [len(one.prompts) for one in three] == [3, 3, 3])
        for one in three:
            one.gate.set()
        assert [answer.result() for answer in answers] == ["一"] * 9


def test_an_answer_is_whole_and_cited_though_its_server_is_lost(
    make_index: Callable[..., Index],
    encoder: FakeEncoder,
    scripted: Callable[..., Scripted],
    trusting: None,
) -> None:
    text = reading(ANSWER, ANSWER).text
    lost, well = scripted(text), scripted(text)
    lost.gate.clear()
    bot = RagBot(Retriever(make_index(TEXT), encoder), lambda: over(lost.url, well.url))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(bot.ask, QUESTION)
        until(lambda: lost.prompts)
        lost.lose()
        found = answer.result()
    assert found.citations[0].quote == ANSWER
    assert found.raw.count(ANSWER) == text.count(ANSWER), "what was broken off is gone"


def test_questions_of_several_visitors_are_at_work_at_once(
    make_bot: Callable[..., RagBot], scripted: Callable[..., Scripted]
) -> None:
    text = reading(ANSWER, ANSWER).text
    both = scripted(text), scripted(text)
    bot = RagBot(make_bot(TEXT).retriever, lambda: over(both[0].url, both[1].url))
    desk = Desk(bot, Bounds(at_once=4))
    for one in both:
        one.gate.clear()

    async def last(visitor: str) -> Event:
        return [event async for event in desk.ask(QUESTION, visitor=visitor)][-1]

    async def story() -> list[Event]:
        readers = [asyncio.create_task(last(visitor)) for visitor in "abcd"]
        await asyncio.to_thread(until, lambda: [len(one.prompts) for one in both] == [2, 2])
        for one in both:
            one.gate.set()
        return await asyncio.gather(*readers)

    told = asyncio.run(story())
    answers = {one.answer.text for one in told if isinstance(one, Finished)}
    assert len(told) == 4 and answers == {bot.ask(QUESTION).text}


def test_a_talk_goes_on_when_a_server_is_back(
    make_bot: Callable[..., RagBot], scripted: Callable[..., Scripted]
) -> None:
    text = reading(ANSWER, ANSWER).text
    both = scripted(text, 503), scripted(text, 503)
    bot = RagBot(make_bot(TEXT).retriever, lambda: over(both[0].url, both[1].url))
    asking = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTION}]}
    with TestClient(site(bot), "http://localhost") as client:
        refused = client.post("/v1/chat/completions", json=asking)
        assert refused.status_code == 503 and "None of 2 servers" in refused.text
        both[1].status = 200
        reply = client.post("/v1/chat/completions", json=asking)
        assert ANSWER in reply.json()["choices"][0]["message"]["content"]


def test_no_server_at_all_is_one_sentence() -> None:
    addresses = closed(), closed()
    with pytest.raises(ModelError) as caught:
        asked(over(*addresses))
    said = str(caught.value)
    assert said.startswith("None of 2 servers gave an answer: no server answers at ")
    assert all(address in said for address in addresses) and said.count(". ") == 0


@pytest.mark.model
def test_no_server_at_all_is_a_mistake_that_can_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGBOT_BASE_URL", f"{closed()},{closed()}")
    command = [sys.executable, "-m", "ragbot", "ask", QUESTION, "--corpus", str(ARTICLE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("ragbot: None of 2 servers") and done.stderr.count("\n") == 1


def test_the_doctor_asks_each_server(scripted: Callable[..., Scripted]) -> None:
    well, away = scripted(), closed()
    config = load_config({"base_url": f"{well.url},{away}", "llm": "m"})
    found = [one for one in examine(config) if one.subject == "generator"]
    assert [bool(one.remedy) for one in found] == [False, True]
    assert well.url in found[0].state and away in found[1].state
    assert well.prompts == []


# --- settings ------------------------------------------------------------------------------------


def test_addresses() -> None:
    assert server_addresses(" http://a/v1/, https://b/v1,http://a/v1,") == [
        "http://a/v1",
        "https://b/v1",
    ]
    for bad in ("", "localhost:8000", "http://a/v1,b"):
        with pytest.raises(ConfigError, match="is no address of a server"):
            server_addresses(bad)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 1),
        ({"base_url": "http://a/v1"}, 4),
        ({"base_url": "http://a/v1,http://b/v1"}, 8),
        ({"base_url": "http://a/v1", "engine": "llamacpp"}, 1),
        ({"base_url": "http://a/v1", "parallel": 3}, 3),
        ({"parallel": 2}, 2),
    ],
)
def test_questions_at_once(given: dict[str, Any], expected: int) -> None:
    assert questions_at_once(load_config(given)) == expected
