"""Loaded: nothing is lost, nothing grows, and after a failure of the engine the next question works."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ragbot.engines import connect_engine, open_engine
from ragbot.errors import ModelError
from ragbot.types import Message
from tests.served import SOON
from tests.torture.load import Load, put_under_load, served
from tests.torture.tools import ROOT
from tests.toy import write_toy_model

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="visitors have addresses of their own on Linux only",
)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(5.0, id="short"),
        pytest.param(
            60 * float(os.environ.get("TORTURE_MINUTES", 60)), id="long", marks=pytest.mark.torture
        ),
    ],
)
def test_a_full_queue_for_as_long_as_it_takes(seconds: float) -> None:
    came = put_under_load("clerk", visitors=40, seconds=seconds)
    print(came.report())
    assert came.wrong() == []
    assert came.counts["answered at once"] and came.counts["answered in pieces"]
    assert came.counts["left by their visitor"] and came.counts["impossible, and told so"]
    assert any(kind.startswith("refused") for kind in came.counts), "the queue was never full"


SAY = [Message("system", "s"), Message("user", "u")]


def test_a_prompt_beyond_the_context_is_one_sentence_and_the_next_question_works(
    tmp_path: Path,
) -> None:
    """The real llama.cpp, with a model of a few kilobytes."""
    path = write_toy_model(tmp_path / "toy.gguf", ["<|im_start|>", "<|im_end|>"])
    engine = open_engine("llamacpp", str(path), context=1024, threads=1)
    for _ in range(3):
        with pytest.raises(ModelError) as caught:
            list(engine.stream([Message("user", "x" * 9000)], max_tokens=4))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
        list(engine.stream(SAY, max_tokens=4))


SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def put(self, data):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
        self.wfile.flush()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in ["one ", "two ", ""] if sys.argv[2] == "well" else ["one "]:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None if word else "stop"}
            part = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [choice]}
            self.put(f"data: {json.dumps(part)}\\n\\n".encode())
        if sys.argv[2] != "well":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        self.put(b"data: [DONE]\\n\\n")
        self.put(b"")
    def log_message(self, *arguments): pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def model_server(port: int, how: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), how], cwd=ROOT)
    try:
        end = time.monotonic() + SOON
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < end
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_an_engine_that_dies_in_the_middle_is_one_sentence_and_the_next_one_answers() -> None:
    """A model server of its own, killed between two words, away for a while, then there again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = connect_engine("m", f"http://127.0.0.1:{port}/v1", "")
    for how in ("dying", "away"):
        if how == "dying":
            with model_server(port, how), pytest.raises(ModelError) as caught:
                list(engine.stream(SAY, max_tokens=4))
        else:
            with pytest.raises(ModelError) as caught:
                list(engine.stream(SAY, max_tokens=4))
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    with model_server(port, "well"):
        assert "".join(engine.stream(SAY, max_tokens=4)) == "one two "


def test_the_figures_of_a_server_can_be_asked_for_while_it_is_full() -> None:
    async def look(load: Load, address: str) -> list[float]:
        task = asyncio.create_task(load.run())
        took = []
        async with httpx.AsyncClient(base_url=address) as client:
            for _ in range(10):
                begun = time.monotonic()
                assert (await client.get("/healthz")).status_code == 200
                took.append(time.monotonic() - begun)
                await asyncio.sleep(0.1)
        await task
        return took

    with (
        tempfile.TemporaryDirectory() as folder,
        served("clerk", Path(folder)) as (address, pid, _),
    ):
        took = asyncio.run(look(Load(address, pid, visitors=40, seconds=2.0), address))
    assert max(took) < 5.0, took
