"""A server from its start to its end: addresses, the line that is printed, Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from ragbot.errors import ConfigError
from ragbot.web.server import _announcement, _local, _origin, listen
from tests.served import SOON


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^Port {port} is taken: .*--port\.$"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", -1, "no port -1"),
        ("127.0.0.1", 65536, "no port 65536"),
        ("", 0, "'' is no address of this machine"),
        ("no such host", 0, "'no such host' is no address"),
        ("nowhere.invalid", 0, "'nowhere.invalid' is no address"),
        ("192.0.2.1", 0, "'192.0.2.1' is no address"),
        ("a" * 70 + ".org", 0, "is no address"),
    ],
)
def test_a_bad_address_is_one_sentence(host: str, port: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        listen(host, port)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("host", "local", "line"),
    [
        ("127.0.0.1", True, "ragbot is at http://127.0.0.1:{}; Ctrl-C stops it."),
        ("localhost", True, "ragbot is at http://127.0.0.1:{}; Ctrl-C stops it."),
        (
            "0.0.0.0",
            False,
            "ragbot is at http://localhost:{}, and open to the network; Ctrl-C stops it.",
        ),
    ],
)
def test_the_line_says_where_it_is_and_who_can_reach_it(host: str, local: bool, line: str) -> None:
    with closing(listen(host, 0)) as listener:
        assert _local(listener) is local
        assert _announcement(listener) == line.format(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://chat.example.org", "https://chat.example.org"),
        (" HTTP://Chat.Example.org:8080/ ", "http://chat.example.org:8080"),
        ("chat.example.org", None),
        ("https://chat.example.org/page", None),
        ("https://", None),
        ("ftp://chat.example.org", None),
        ("*", None),
        ("null", None),
        ("https://[", None),
    ],
)
def test_an_origin_is_as_browsers_send_it(text: str, origin: str | None) -> None:
    if origin is None:
        with pytest.raises(ConfigError, match="is no origin"):
            _origin(text)
    else:
        assert _origin(text) == origin


SERVING = """
    import os, sys, threading
    from pathlib import Path
    from ragbot.bot import RagBot
    from ragbot.chunking import chunk
    from ragbot.__main__ import main
    from ragbot.corpus import load_corpus
    from ragbot.faiss_index import build_index
    from ragbot.retriever import Retriever
    from ragbot.web import server
    from ragbot.web.observe import log_as_json
    from tests.fakes import FakeEncoder
    from tests.served import TEXT, Clerk, site
    import ragbot.cli

    Path("doc.txt").write_text(TEXT, encoding="utf-8")
    encoder, engine = FakeEncoder(), Clerk()
    documents = load_corpus(Path("doc.txt")).documents
    chunks = [c for d in documents for c in chunk(d, limit=200, count=encoder.count_tokens)]
    index = build_index(Path("made"), documents, chunks, encoder)
    if sys.argv[1] == "shut":
        engine.gate.clear()

    def serve() -> None:
        listener = server.listen("127.0.0.1", 0)
        log_as_json()
        server.run(site(RagBot(Retriever(index, encoder), lambda: engine)), listener)

    ragbot.cli.app = serve
    main()
"""


@contextmanager
def serving(folder: Path, gate: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, as the command line runs it, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVING), gate],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "", "RAGBOT_CACHE": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("ragbot is at http://127.0.0.1:"), process.communicate()[1]
        yield process, line.split()[3].rstrip(";")
    finally:
        process.kill()
        process.communicate()


def asking(*, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "a1?"}]
    body = json.dumps({"model": "ragbot", "stream": stream, "messages": messages}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.apart
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_server_ends_quietly_and_at_once_in_the_middle_of_answers(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    with serving(tmp_path, "shut") as (process, address):
        port = int(address.rsplit(":", 1)[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as streaming,
            socket.create_connection(("127.0.0.1", port)) as whole,
            socket.create_connection(("127.0.0.1", port)),
        ):
            streaming.sendall(asking(stream=True))
            assert streaming.recv(100).startswith(b"HTTP/1.1 200")
            whole.sendall(asking(stream=False))
            end = time.monotonic() + SOON
            while httpx.get(f"{address}/healthz").json()["waiting"] != 1:
                assert time.monotonic() < end
            begun = time.monotonic()
            process.send_signal(sent)
            out, err = process.communicate(timeout=SOON)
            took = time.monotonic() - begun
    assert process.returncode == code and out == ""
    assert took < 4.0
    assert all(line.startswith("{") for line in err.splitlines())
    assert not any(word in err for word in ("Traceback", "ERROR", "CRITICAL"))


@pytest.mark.apart
def test_a_connection_that_rests_for_some_seconds_is_not_closed(tmp_path: Path) -> None:
    # A balancer sends the next question on it: closed in the same moment, that one would be lost.
    with serving(tmp_path, "open") as (_, address):
        connection = HTTPConnection(address.removeprefix("http://"))
        with closing(connection):
            for rest in (6.0, 0.0):
                connection.request("GET", "/healthz")
                assert connection.getresponse().read()
                assert connection.sock, "the server closed it"
                time.sleep(rest)
