"""Keys, rates, sizes, times, names and origins; what browsers are told; what of Gradio is closed."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import gradio
import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from ragbot.bot import RagBot
from ragbot.web.guard import Rates, Rules
from ragbot.web.site import page_host
from tests.served import QUESTION, SOON, TEXT, Clerk, lives, running, site

CHAT = "/v1/chat/completions"
ASKING = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTION}]}
FREE = Rules(rate=0)
KEY = "s3cret-ключ"


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(TEXT)


@pytest.fixture
def guarded(bot: RagBot) -> Callable[..., TestClient]:
    """A client of the site under some rules."""

    def make(rules: Rules, client: tuple[str, int] = ("10.0.0.1", 1)) -> TestClient:
        return TestClient(
            site(bot, rules), "http://localhost:7860", raise_server_exceptions=False, client=client
        )

    return make


def code(reply: Any) -> str:
    """The code of an error, which always has the one form."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"].endswith(".")
    return str(error["code"])


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
    ],
)
def test_a_key_is_asked_for(
    guarded: Callable[..., TestClient], header: str | None, status: int
) -> None:
    given = {} if header is None else {"authorization": header.encode()}
    reply = guarded(replace(FREE, key=KEY)).get("/v1/models", headers=given)  # type: ignore[arg-type]
    assert reply.status_code == status
    if status == 401:
        assert code(reply) == "invalid_api_key" and reply.headers["www-authenticate"] == "Bearer"
        assert KEY not in reply.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", CHAT, 401),
        ("GET", CHAT, 401),
        ("POST", "/v1/search", 401),
        ("GET", "/v1/anything", 401),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
    ],
)
def test_a_key_guards_the_api_alone(
    guarded: Callable[..., TestClient], engine: Clerk, method: str, path: str, status: int
) -> None:
    client = guarded(replace(FREE, key=KEY))
    assert client.request(method, path).status_code == status
    assert engine.asked == []


@pytest.mark.parametrize("key", ["", KEY])
def test_the_document_says_whether_a_key_is_asked_for(
    guarded: Callable[..., TestClient], key: str
) -> None:
    document = guarded(replace(FREE, key=key)).get("/openapi.json").json()
    chat, health = document["paths"][CHAT]["post"], document["paths"]["/healthz"]["get"]
    assert (
        ("securitySchemes" in document["components"]) == ("401" in chat["responses"]) == bool(key)
    )
    assert bool(chat.get("security")) == bool(key) and not health.get("security")


# --- rates ----------------------------------------------------------------------------------------


def test_a_client_has_so_many_questions_a_minute(guarded: Callable[..., TestClient]) -> None:
    client = guarded(Rules(rate=3))
    asked = [client.post(CHAT, json=ASKING).status_code, client.post(CHAT, json={}).status_code]
    asked.append(client.post("/v1/search", json={"query": QUESTION}).status_code)
    assert asked == [200, 400, 200]
    for path in (CHAT, "/v1/search"):
        reply = client.post(path, json=ASKING)
        assert reply.status_code == 429 and code(reply) == "rate_limit_exceeded"
        assert 0 < int(reply.headers["retry-after"]) <= 20
    for path in ("/healthz", "/metrics", "/v1/models"):
        assert client.get(path).status_code == 200


def test_one_clients_questions_are_not_anothers(bot: RagBot) -> None:
    app = site(bot, Rules(rate=1))
    for address in ("10.0.0.1", "10.0.0.2"):
        client = TestClient(app, "http://localhost", client=(address, 1))
        statuses = [client.post("/v1/search", json={"query": QUESTION}).status_code for _ in "ab"]
        assert statuses == [200, 429]


@pytest.mark.parametrize("rate", [1, 3, 30, 600])
def test_who_waits_as_long_as_he_is_told_may_go_on(rate: int) -> None:
    now = 100.0
    rates = Rates(rate, clock=lambda: now)
    assert [rates.wait("a") for _ in range(rate)] == [0.0] * rate
    for _ in range(5):
        wait = rates.wait("a")
        assert 0 < wait <= 60 / rate + 1e-6
        now += wait * 0.9
        assert rates.wait("a") > 0  # not earlier
        now += wait * 0.1
        assert rates.wait("a") == 0.0
    assert rates.wait("b") == 0.0
    now += 60.0
    assert [rates.wait("a") for _ in range(rate)] == [0.0] * rate and rates.wait("a") > 0


def test_who_is_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragbot.web.guard._CLIENTS", 10)
    now = 0.0
    rates = Rates(2, clock=lambda: now)
    for number in range(100):
        rates.wait(f"client {number}")
        now += 10.0
    assert len(rates._full_at) <= 11


# --- sizes and times ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        (CHAT, 1001, 413),
        (CHAT, 1000, 400),
        ("/v1/search", 1001, 413),
        ("/nowhere", 1001, 413),
        ("/gradio_api/queue/join", 1001, 404),  # a page without anything on it
        ("/gradio_api/queue/join", 2001, 413),
        ("/gradio_api/upload", 2001, 404),
        ("/gradio_api/upload", 3001, 413),
    ],
)
def test_a_body_has_its_bounds(
    guarded: Callable[..., TestClient], path: str, size: int, status: int
) -> None:
    rules = replace(FREE, body=1000, page_body=2000, upload=3000)
    reply = guarded(rules).post(path, content=b"x" * size)
    assert reply.status_code == status
    if status == 413:
        assert code(reply) == "request_too_large"


@pytest.mark.parametrize("size", [2_000, 3_000_000])
def test_a_body_too_large_has_an_answer_on_a_real_connection(bot: RagBot, size: int) -> None:
    with running(site(bot, replace(FREE, body=1000))) as address:
        reply = httpx.post(address + CHAT, content=b"x" * size)
        assert (reply.status_code, code(reply)) == (413, "request_too_large")

        def pieces() -> Any:
            for _ in range(size // 500):
                yield b"x" * 500

        chunked = httpx.post(
            address + CHAT, content=pieces(), headers={"content-type": "application/json"}
        )
        assert (chunked.status_code, code(chunked)) == (413, "request_too_large")
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("path", [CHAT, "/nowhere", "/healthz"])
def test_behind_the_answer_to_a_body_without_an_end_nothing_is_read(bot: RagBot, path: str) -> None:
    with running(site(bot, replace(FREE, body=1000))) as address:
        place = urlsplit(address)
        with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
            connection.settimeout(SOON)
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            with pytest.raises(ConnectionError):
                for _ in range(2000):
                    connection.sendall(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_does_not_come_is_not_waited_for(bot: RagBot, chunked: bool) -> None:
    with running(site(bot, replace(FREE, seconds=0.05))) as address:
        place = urlsplit(address)
        with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
            how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100"
            begun = '5\r\n{"mod\r\n' if chunked else '{"mod'
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}{how}\r\n\r\n{begun}".encode())
            connection.settimeout(SOON)
            assert b" 408 " in connection.recv(100)


# --- names and origins ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("localhost:7860", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:7860", True),
        ("[::1]:7860", True),
        ("chat.example.org", True),  # its origin is allowed
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:7860", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.5:7860", False),
        ("[::1", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/models"])
def test_a_server_of_this_machine_has_no_other_name(
    guarded: Callable[..., TestClient], host: str, good: bool, path: str
) -> None:
    rules = replace(FREE, origins=("https://chat.example.org",))
    reply = guarded(rules).get(path, headers={"host": host})
    assert (reply.status_code == 403) is not good
    if not good:
        assert code(reply) == "wrong_host"
    assert guarded(replace(rules, local=False)).get("/metrics", headers={"host": host}).is_success


def test_a_balancer_sees_its_health_under_any_name(guarded: Callable[..., TestClient]) -> None:
    seen = {"host": "web-1:7860", "user-agent": "Go-http-client/1.1"}
    client = guarded(FREE)
    assert client.get("/healthz", headers=seen).json()["status"] == "ok"
    assert [client.get(path, headers=seen).status_code for path in ("/metrics", "/")] == [403, 403]
    from_elsewhere = seen | {"origin": "https://evil.example"}
    assert client.post("/healthz", headers=from_elsewhere).status_code == 403


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (None, True),
        ("http://localhost:7860", True),
        ("https://localhost:7860", True),
        ("http://LOCALHOST:7860", True),
        ("https://chat.example.org", True),
        ("http://localhost:3000", False),
        ("http://127.0.0.1:7860", False),
        ("https://chat.example.org.evil.example", False),
        ("http://chat.example.org", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/gradio_api/queue/join"])
def test_another_sites_page_changes_nothing_here(
    guarded: Callable[..., TestClient], origin: str | None, good: bool, path: str
) -> None:
    client = guarded(replace(FREE, origins=("https://chat.example.org",)))
    headers = {} if origin is None else {"origin": origin}
    reply = client.post(path, json={"query": QUESTION}, headers=headers)
    assert (reply.status_code == 403) is not good
    if not good:
        assert code(reply) == "wrong_origin"


@pytest.mark.parametrize("allowed", [(), ("https://chat.example.org",)])
def test_other_sites_read_nothing_unless_they_may(
    guarded: Callable[..., TestClient], allowed: tuple[str, ...]
) -> None:
    client = guarded(replace(FREE, origins=allowed, key=KEY))
    for origin in ("https://chat.example.org", "https://evil.example"):
        preflight = client.options(
            CHAT,
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        read = client.get("/v1/models", headers={"origin": origin})
        told = [reply.headers.get("access-control-allow-origin") for reply in (preflight, read)]
        assert told == ([origin] * 2 if origin in allowed else [None] * 2)
        assert preflight.is_success == (origin in allowed)
        assert "access-control-allow-credentials" not in read.headers


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> ASGIApp:
    with gradio.Blocks(analytics_enabled=False) as blocks:
        said = gradio.Textbox("<script>alert(1)</script>")
        said.submit(lambda text: text, said, said, api_name="said")
    app: FastAPI = gradio.mount_gradio_app(page_host(lives), blocks, "/", footer_links=[])
    return app


@pytest.fixture
def visitor(bot: RagBot, page: ASGIApp) -> TestClient:
    return TestClient(site(bot, replace(FREE, key=KEY), page=page), "http://localhost")


def test_the_page_runs_no_script_but_its_own(visitor: TestClient) -> None:
    marks = set()
    for _ in range(2):
        reply = visitor.get("/", headers={"accept-encoding": "br, gzip"})
        assert reply.status_code == 200 and "content-encoding" not in reply.headers
        policy = reply.headers["content-security-policy"]
        (mark,) = re.findall(r"script-src 'self' 'nonce-([\w-]{22})' 'unsafe-eval'", policy)
        tags = re.findall(r"<script\b[^>]*>", reply.text)
        assert len(tags) >= 5 and all(f'nonce="{mark}"' in tag for tag in tags)
        assert int(reply.headers["content-length"]) == len(reply.content)
        assert "unsafe-inline" not in re.sub(r"style-src[^;]*", "", policy)
        assert "://" not in policy and "frame-ancestors 'none'" in policy
        marks.add(mark)
    assert len(marks) == 2


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/theme.css", "/openapi.json"])
def test_browsers_are_told_to_be_careful(visitor: TestClient, path: str) -> None:
    headers = visitor.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/proxy=https://example.org/"),
        ("GET", "/gradio_api/file=https://example.org/x.png"),
        ("GET", "/gradio_api/file=HTTP://example.org/x.png"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/gradio_api/token"),
        ("GET", "/gradio_api/app_id"),
        ("GET", "/svelte/x.js"),
        ("POST", "/gradio_api/call/said"),
        ("POST", "/gradio_api/run/said"),
        ("POST", "/gradio_api/api/said"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/login"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(
    visitor: TestClient, method: str, path: str
) -> None:
    reply = visitor.request(method, path, json={"data": ["x"]} if method == "POST" else None)
    assert (reply.status_code, code(reply)) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/gradio_api/startup-events"])
def test_what_the_page_needs_is_there_without_a_key(visitor: TestClient, path: str) -> None:
    with visitor:
        assert visitor.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["queue/join", "run/predict", "component_server", "cancel", "reset", "upload"]
)
def test_what_gradio_is_sent_too_much_of_is_refused_as_elsewhere(
    bot: RagBot, page: ASGIApp, path: str
) -> None:
    app = site(bot, replace(FREE, page_body=1000, upload=1000), page=page)
    of_what = "multipart/form-data; boundary=x" if path == "upload" else "application/json"
    reply = TestClient(app, "http://localhost").post(
        f"/gradio_api/{path}",
        content=iter([b"--x\r\n" if path == "upload" else b'"', b"x" * 2000]),  # in chunks
        headers={"content-type": of_what},
    )
    assert (reply.status_code, code(reply)) == (413, "request_too_large")


def test_gradio_lets_no_other_origin_read(visitor: TestClient) -> None:
    for host in ("localhost", "public.example"):
        reply = visitor.get("/config", headers={"origin": "http://evil.example", "host": host})
        assert "access-control-allow-origin" not in reply.headers
        assert "access-control-allow-credentials" not in reply.headers
