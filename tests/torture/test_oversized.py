"""Oversized: bodies beyond their bounds, of every kind, to every endpoint that takes one.

Each is refused at once, in JSON, and hung up on; the server does not grow by it, and the others are
answered meanwhile.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ragbot.web.guard import Rules
from tests.served import SOON
from tests.torture.load import served
from tests.torture.test_attacked import LINUX
from tests.torture.tools import rounds, status
from tests.toy import write_toy_model

pytestmark = pytest.mark.skipif(not LINUX, reason="needs /proc")

CHAT, SEARCH = "/v1/chat/completions", "/v1/search"
PAGE = "/gradio_api/"
UPLOAD = f"{PAGE}upload"
# What a rating is sent by is `component_server`.
PATHS = [CHAT, SEARCH, UPLOAD] + [
    PAGE + name for name in ("queue/join", "run/predict", "component_server", "cancel", "reset")
]
FILE = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="%d.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\n"
)
BLOCK = b"x" * (1 << 16)
BEYOND = 40_000_000  # bytes that are tried to send beyond what is allowed


@dataclass(frozen=True)
class Server:
    """A real `ragbot serve`, with a model of a few kilobytes, in a process of its own."""

    address: str
    pid: int
    log: Path
    folder: Path

    def connected(self) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", urlsplit(self.address).port or 0), timeout=4 * SOON
        )

    def answers(self) -> bool:
        reply = httpx.post(f"{self.address}{SEARCH}", json={"query": "華為"}, timeout=2 * SOON)
        return reply.status_code == 200

    def megabytes(self, which: str) -> float:
        return status(self.pid, which)[0] / 1e3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("oversized")
    toy = write_toy_model(folder / "toy.gguf", ["<|im_start|>", "<|im_end|>"])
    with served(str(toy), folder, "--encoder", tiny) as (address, pid, log):
        made = Server(address, pid, log, folder)
        # An answer, so that all that is loaded behind the page is there before memory is looked at.
        asked = {"model": "ragbot", "messages": [{"role": "user", "content": "華為？"}]}
        assert httpx.post(f"{address}{CHAT}", json=asked, timeout=8 * SOON).status_code == 200
        assert made.answers() and httpx.get(address, timeout=4 * SOON).status_code == 200
        yield made


def head(path: str, length: str) -> bytes:
    what = "multipart/form-data; boundary=x" if path == UPLOAD else "application/json"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {what}\r\n{length}\r\n\r\n".encode()


def beginning(path: str) -> bytes:
    """What can be the beginning of an honest body."""
    if path == UPLOAD:
        return FILE % 0
    return b'{"model": "ragbot", "query": "' if path == SEARCH else b'{"model": "ragbot", "data": "'


def chunks(path: str) -> Iterator[bytes]:
    """A body without an end, all of it one string or, of the upload, files of 9 MB."""
    yield beginning(path)
    for number in count(1):
        yield from repeat(BLOCK, 9_000_000 // len(BLOCK))
        if path == UPLOAD:
            yield b"\r\n" + FILE % number


def send_chunked(connection: socket.socket, path: str) -> int:
    """Send it until that fails; how many bytes were sent."""
    connection.sendall(head(path, "Transfer-Encoding: chunked"))
    sent = 0
    try:
        for part in chunks(path):
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            sent += len(part)
            assert sent < Rules().most(path) + BEYOND, "it goes on being read"
    except ConnectionError:
        pass
    return sent


def told(connection: socket.socket) -> tuple[int, str]:
    """Status and code of the answer, which is in the API's form."""
    got = b""
    try:
        while part := connection.recv(1 << 16):
            got += part
    except ConnectionError:  # hung up on, behind the answer
        pass
    top, _, body = got.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in top.lower(), got[:500]
    return int(top.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("path", PATHS)
def test_a_length_beyond_the_bound_is_refused_before_anything_comes(
    server: Server, path: str
) -> None:
    with server.connected() as connection:
        connection.sendall(head(path, f"Content-Length: {Rules().most(path) + 1}"))
        assert told(connection) == (413, "request_too_large")


@pytest.mark.parametrize("path", PATHS)
@rounds(short=1, long=20)
def test_a_body_without_an_end_is_refused_and_hung_up_on(
    server: Server, path: str, rounds: int
) -> None:
    before = server.megabytes("VmRSS")
    for _ in range(rounds):
        with server.connected() as connection:
            assert send_chunked(connection, path) > Rules().most(path) - len(BLOCK)
            assert told(connection) == (413, "request_too_large")
    grown = server.megabytes("VmHWM") - before
    print(f"{rounds} endless bodies to {path}: at most {grown:.0f} MB more than before")
    assert grown < 100
    assert server.answers()


@pytest.mark.parametrize("path", PATHS)
def test_a_string_as_long_as_a_body_may_be_is_answered(server: Server, path: str) -> None:
    most = min(Rules().most(path), 9_000_000)
    start, end = beginning(path), b'"}'
    body = start + b"x" * (most - len(start) - len(end)) + end
    if path == UPLOAD:
        body = start + b"x" * 11_000_000 + b"\r\n--x--\r\n"  # more than one file may have
    with server.connected() as connection:
        connection.sendall(head(path, f"Content-Length: {len(body)}\r\nConnection: close") + body)
        assert connection.recv(100).split()[1] in (b"400", b"413", b"422")
    assert server.answers()


def test_others_are_answered_while_endless_bodies_come_in(server: Server) -> None:
    stop = threading.Event()

    def send(path: str) -> None:
        while not stop.is_set():
            with server.connected() as connection:
                send_chunked(connection, path)

    senders = [threading.Thread(target=send, args=[path], daemon=True) for path in PATHS]
    for sender in senders:
        sender.start()
    try:
        for _ in range(5):
            begun = time.monotonic()
            assert server.answers()
            assert time.monotonic() - begun < SOON
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def test_nothing_of_it_is_a_bug(server: Server) -> None:
    with server.connected() as connection:
        connection.sendall(head(UPLOAD, "Content-Length: 999999") + FILE % 0 + BLOCK)
    assert server.answers()
    assert "Traceback" not in server.log.read_text(encoding="utf-8")
