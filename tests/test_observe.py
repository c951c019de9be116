"""The lines that are logged: one a request, nothing of what was asked, and traces only there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from ragbot.bot import RagBot
from ragbot.errors import ModelError
from ragbot.web.guard import Rules
from ragbot.web.observe import Book, WatchedDesk, log_as_json
from ragbot.web.site import build_site, page_host
from tests.served import QUESTION, TEXT, Clerk, lives, run_events

CHAT = "/v1/chat/completions"
ASKING = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(TEXT)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    root, names = logging.getLogger(), ("ragbot.web", "uvicorn.error")
    before = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    yield
    root.handlers[:], root.level = before[0], before[1]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).setLevel(level)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def client_of(bot: RagBot, book: Book, rules: Rules | None = None) -> TestClient:
    log_as_json()
    app = build_site(bot, WatchedDesk(bot, book), book, rules or Rules(), page_host(lives))
    return TestClient(
        app, "http://localhost", client=("10.1.2.3", 5), raise_server_exceptions=False
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_one_line_without_the_question(
    bot: RagBot, capsys: pytest.CaptureFixture[str], stream: bool
) -> None:
    client_of(bot, Book()).post(CHAT, json=ASKING | {"stream": stream})
    (line,) = logged(capsys)
    assert line | {"time": "", "client": ""} == line | {
        "level": "INFO",
        "logger": "ragbot.web",
        "event": "request",
        "route": CHAT,
        "method": "POST",
        "status": 200,
        "outcome": "answered",
        "refused": False,
        "language": "zh-Hant",
        "time": "",
        "client": "",
    }
    assert line["ms"] >= line["first_text_ms"] >= line["waiting_ms"] >= 0
    assert line["prompt_tokens"] > 0 and line["completion_tokens"] > 0
    text = json.dumps(line, ensure_ascii=False)
    assert not any(secret in text for secret in (QUESTION, "華為", "10.1.2.3"))
    assert line["time"].endswith("+00:00")


def test_questions_are_written_down_when_asked_for(
    bot: RagBot, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(bot, Book(log_questions=True))
    client.post(CHAT, json=ASKING)
    client.post("/v1/search", json={"query": "切片\n{}"})
    assert [line["question"] for line in logged(capsys)] == [QUESTION, "切片\n{}"]


def test_a_client_is_known_by_a_name_of_this_process(
    bot: RagBot, capsys: pytest.CaptureFixture[str]
) -> None:
    for book in (Book(), Book()):
        client = client_of(bot, book)
        for _ in range(2):
            client.get("/v1/models")
    names = [line["client"] for line in logged(capsys)]
    assert names[0] == names[1] != names[2] == names[3]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", None),
        ("GET", "/metrics", None),
        ("GET", "/openapi.json", None),
        ("GET", "/v1/models", 200),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/search", 400),
        ("GET", CHAT, 405),
    ],
)
def test_what_is_no_news_has_no_line(
    bot: RagBot, capsys: pytest.CaptureFixture[str], method: str, path: str, status: int | None
) -> None:
    client_of(bot, Book()).request(method, path)
    assert [line["status"] for line in logged(capsys)] == ([status] if status else [])


def test_who_is_refused_at_the_door_has_a_line(
    bot: RagBot, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(bot, Book(), Rules(key="k", rate=1))
    client.post(CHAT, json=ASKING)
    for _ in range(2):
        client.post("/v1/search", json={}, headers={"authorization": "Bearer k"})
    assert [(line["status"], line["route"]) for line in logged(capsys)] == [
        (401, "other"),
        (400, "/v1/search"),
        (429, "other"),
    ]


def test_a_bug_has_its_trace_in_the_log_alone(
    bot: RagBot, engine: Clerk, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.fails["a1"] = RuntimeError("a bug\nof two lines")
    asking = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTION + "a1"}]}
    reply = client_of(bot, Book()).post(CHAT, json=asking)
    assert reply.status_code == 500 and "bug" not in reply.text
    bug, request = logged(capsys)
    assert bug["level"] == "ERROR" and "RuntimeError: a bug\nof two lines" in bug["exc_info"]
    assert request["status"] == 500 and request["outcome"] == "failed"


def test_what_a_page_asks_has_a_line_of_its_own(
    bot: RagBot, engine: Clerk, capsys: pytest.CaptureFixture[str]
) -> None:
    log_as_json()
    book = Book()
    desk = WatchedDesk(bot, book)
    run_events(desk.ask(QUESTION, visitor="token-of-a-browser"))
    engine.refuse()
    run_events(desk.ask(QUESTION, visitor="token-of-a-browser"))
    engine.fails["a1"] = ModelError("It is gone.")
    with pytest.raises(ModelError):
        run_events(desk.ask(QUESTION + "a1", visitor="another"))
    run_events(desk.ask(QUESTION, visitor="another"), most=1)
    lines = logged(capsys)
    assert [line["outcome"] for line in lines] == ["answered", "refused", "failed", "left"]
    assert {line["event"] for line in lines} == {"answer"}
    assert lines[0]["client"] == lines[1]["client"] != lines[2]["client"]
    assert "browser" not in json.dumps(lines)
    figures = book.text().decode()
    for outcome in ("answered", "refused", "failed", "left"):
        assert f'ragbot_questions_total{{outcome="{outcome}"}} 1.0' in figures
