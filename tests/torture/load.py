"""The highest load that the queue admits, for as long as one likes, over HTTP, and what came of it.

    python -m tests.torture.load --minutes 60
    python -m tests.torture.load --minutes 1 --engine clerk     # a generator that answers at once

A real server is started in a process of its own. Visitors, each under an address of his own of this
machine, ask without a pause; some hang up in the middle, some ask for what cannot be done. What is
counted: questions that got neither an answer nor a refusal, and whether memory, threads or open
files grow once the server is warm. Linux, where 127.0.0.2 and so on need no setting up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ragbot.text import sentences
from tests.conftest import ARTICLE
from tests.torture.tools import ROOT, SEED, environment, open_files, ragbot, status

_WARM_SECONDS = 300.0
REFUSALS = {429, 503, 504}
PATIENCE = 600.0  # seconds: longer than a question may wait (300) and be worked on (180)
CLERK = """
import sys
from pathlib import Path
import ragbot.__main__
import ragbot.cli
from ragbot.bot import RagBot
from ragbot.chunking import chunk
from ragbot.corpus import load_corpus
from ragbot.faiss_index import build_index
from ragbot.retriever import Retriever
from ragbot.web import server
from ragbot.web.observe import log_as_json
from tests.fakes import FakeEncoder
from tests.served import Clerk, site

class Forgetful(Clerk):
    # What other tests look at afterwards is not kept: that would be growth of its own.
    def stream(self, *arguments, **named):
        for name, kept in vars(self).items():
            if isinstance(kept, list) and name != "replies":
                kept.clear()
        return super().stream(*arguments, **named)

folder = Path(sys.argv[1])
encoder = FakeEncoder()
documents = load_corpus(Path(sys.argv[2])).documents
chunks = [c for d in documents for c in chunk(d, limit=200, count=encoder.count_tokens)]
bot = RagBot(Retriever(build_index(folder / "made", documents, chunks, encoder), encoder), Forgetful)

def serve() -> None:
    listener = server.listen("127.0.0.1", 0)
    log_as_json()
    server.run(site(bot), listener)

ragbot.cli.app = serve  # what Ctrl-C does, the command line knows
ragbot.__main__.main()
"""


@dataclass(frozen=True)
class Sample:
    """What the server held at a moment."""

    at: float
    megabytes: float
    threads: int
    files: int


@dataclass
class Came:
    """What came of it all."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def growth(self, what: str) -> float:
        """How much more was held in the last quarter than in the second, by the medians."""
        values = [float(getattr(sample, what)) for sample in self.samples]
        quarter = max(1, len(values) // 4)
        return statistics.median(values[-quarter:]) - statistics.median(values[quarter:][:quarter])

    def report(self) -> str:
        """The figures, a line each."""
        lines = [f"{number} {kind}" for kind, number in sorted(self.counts.items())]
        lines += [f"{len(self.lost)} lost", f"{len(self.complaints)} tracebacks in the log"]
        for what in ("megabytes", "threads", "files"):
            held = [getattr(sample, what) for sample in self.samples]
            lines.append(
                f"{what}: {min(held):.0f} to {max(held):.0f}, grew {self.growth(what):+.1f}"
            )
        return "\n".join(lines)

    def wrong(self) -> list[str]:
        """What must not be: nothing lost, nothing growing, no traceback."""
        # In a minute a server is not warm yet; a leak of one a question would be thousands.
        share = 0.05 if self.samples[-1].at - self.samples[0].at > _WARM_SECONDS else 0.3
        allowed = {"megabytes": share * self.samples[-1].megabytes, "threads": 10, "files": 12}
        growing = [
            f"{what} grew by {self.growth(what):.1f}"
            for what, most in allowed.items()
            if self.growth(what) > most
        ]
        return [*self.lost[:3], *growing, *self.complaints[:3]]


@contextmanager
def served(engine: str, folder: Path, *more: str | Path) -> Iterator[tuple[str, int, Path]]:
    """The address of a server, the number of its process, and its log. With `more` flags it has a
    cache of its own in `folder`."""
    log = folder / "log"
    if engine == "clerk":
        command, env = [sys.executable, "-c", CLERK, str(folder), str(ARTICLE)], environment(folder)
    else:
        models = () if engine == "packaged" else ("--llm", engine)
        flags = ("--port", "0", "--rate", "0", "--index", folder / "index", "--corpus", ARTICLE)
        command, env = (
            ragbot("serve", *flags, *models, *more),
            environment(folder if more else None),
        )
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "http://" in line, log.read_text(encoding="utf-8")[-2000:]
            yield line.split()[3].rstrip(";"), process.pid, log
        finally:
            process.kill()
            process.wait()


class Load:
    """`visitors` who ask until the end; with 33 of them, two questions each, the queue is full."""

    def __init__(self, address: str, pid: int, *, visitors: int, seconds: float):
        self._address, self._pid = address, pid
        self._visitors, self._end = visitors, time.monotonic() + seconds
        self._seconds = seconds
        text = ARTICLE.read_text(encoding="utf-8")
        self._questions = [text[a:b][:60] + "？" for a, b in sentences(text)][:200]
        self.came = Came()

    async def run(self) -> Came:
        """All of it."""
        asking = [self._ask(n, m) for n in range(self._visitors) for m in range(2)]
        await asyncio.gather(self._watch(), *asking)
        return self.came

    async def _watch(self) -> None:
        while time.monotonic() < self._end:
            kilobytes, threads = status(self._pid, "VmRSS", "Threads")
            now = time.monotonic()
            self.came.samples.append(Sample(now, kilobytes / 1e3, threads, open_files(self._pid)))
            await asyncio.sleep(min(5.0, self._seconds / 100))

    async def _ask(self, number: int, copy: int) -> None:
        chance = random.Random(f"{SEED} {number} {copy}")
        transport = httpx.AsyncHTTPTransport(
            local_address=f"127.0.{1 + number // 250}.{2 + number % 250}",
            verify=False,  # no certificates are read: for 80 visitors that takes seconds
        )
        async with httpx.AsyncClient(
            transport=transport, base_url=self._address, timeout=PATIENCE
        ) as client:
            while time.monotonic() < self._end:
                way = chance.choices(
                    [self._whole, self._streamed, self._hang_up, self._odd], [4, 3, 2, 1]
                )[0]
                try:
                    kind = await way(client, chance)
                except Exception as error:
                    self.came.lost.append(f"{way.__name__[1:]}: {error!r}")
                    kind = "without any answer"
                self.came.counts[kind] += 1
                if kind.startswith("refused"):
                    await asyncio.sleep(chance.uniform(0.05, 0.3))

    def _body(self, chance: random.Random, **more: object) -> dict[str, object]:
        messages = [{"role": "user", "content": chance.choice(self._questions)}]
        return {"model": "ragbot", "messages": messages, **more}

    async def _whole(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        reply = await client.post("/v1/chat/completions", json=self._body(chance))
        if reply.status_code == 200:
            assert reply.json()["choices"][0]["message"]["content"]
            return "answered at once"
        return _refused(reply.status_code, reply.json())

    async def _streamed(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body = self._body(chance, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            if reply.status_code != 200:
                return _refused(reply.status_code, json.loads(await reply.aread()))
            lines = [line async for line in reply.aiter_lines() if line.startswith("data: ")]
        if lines[-1] == "data: [DONE]" and len(lines) > 1:
            return "answered in pieces"
        return _refused(503, json.loads(lines[-1].removeprefix("data: ")))

    async def _hang_up(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body = self._body(chance, stream=chance.random() < 0.7)
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._leave(client, body, chance), chance.uniform(0.0, 2.0))
        return "left by their visitor"

    async def _leave(
        self, client: httpx.AsyncClient, body: dict[str, object], chance: random.Random
    ) -> None:
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for _ in reply.aiter_lines():
                if chance.random() < 0.3:
                    return

    async def _odd(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        bad = chance.choice([b"{", b'{"model": "ragbot", "messages": []}', b"\xff" * 99, b"null"])
        reply = await client.post("/v1/chat/completions", content=bad)
        assert reply.status_code == 400 and reply.json()["error"]["message"]
        return "impossible, and told so"


def _refused(status: int, body: dict[str, dict[str, str]]) -> str:
    said = body["error"]["message"]
    assert status in REFUSALS and said.endswith("."), (status, said)
    return f"refused: {said[:40]}"


def put_under_load(engine: str, *, visitors: int, seconds: float) -> Came:
    """Start a server, load it, stop it. Raises AssertionError when it cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        with served(engine, Path(folder)) as (address, pid, log):
            came = asyncio.run(Load(address, pid, visitors=visitors, seconds=seconds).run())
            for _ in range(100):  # what was left behind by visitors goes
                if httpx.get(f"{address}/healthz").json()["waiting"] == 0:
                    break
                time.sleep(0.1)
            assert httpx.get(f"{address}/healthz").json()["waiting"] == 0
            written = log.read_text(encoding="utf-8", errors="replace").splitlines()
        came.complaints = [line[:500] for line in written if "Traceback" in line]
    return came


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a server and print what came of it; 1 when something did that must not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--minutes", type=float, default=float(os.environ.get("TORTURE_MINUTES", 60))
    )
    parser.add_argument("--visitors", type=int, default=33)
    parser.add_argument(
        "--engine", default="packaged", help="packaged, clerk, or what --llm of ragbot serve takes"
    )
    given = parser.parse_args(arguments)
    os.chdir(ROOT)
    came = put_under_load(given.engine, visitors=given.visitors, seconds=60 * given.minutes)
    print(came.report())
    for line in came.wrong():
        print(f"WRONG: {line}")
    return int(bool(came.wrong()))


if __name__ == "__main__":
    sys.exit(main())
