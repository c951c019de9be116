"""The page on a real server, with an engine that knows a few answers, in a real browser.

Whatever a test does: nothing may fail in the browser, and no other host may be asked for anything.
"""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI

from ragbot.bot import RagBot
from ragbot.chunking import chunk
from ragbot.corpus import load_corpus
from ragbot.engines.base import TextStream
from ragbot.errors import ModelError
from ragbot.faiss_index import build_index
from ragbot.retriever import Retriever
from ragbot.text import fold
from ragbot.types import Message, Usage
from ragbot.web.desk import Desk
from ragbot.web.feedback import Feedback
from ragbot.web.guard import Rules
from ragbot.web.observe import Book
from ragbot.web.own.uploads import Uploads
from ragbot.web.page.layout import build_page, mount_page
from ragbot.web.site import build_site, page_host
from ragbot.web.starts import Start
from tests.fakes import FakeEncoder, FakeEngine, Reply, nothing, reading

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SOON = 10_000.0  # milliseconds within which what is to happen has happened, on any machine
_POLL = 0.02

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


class Oracle(FakeEngine):
    """Knows what to find for a question that holds certain words; works while its gate is open.

    It takes `seconds` for each reading, and notices at once when nobody waits for it any more.
    """

    def __init__(self, known: Mapping[str, Reply | Exception], seconds: float = 0.0):
        super().__init__()
        self.known = {fold(words).text: reply for words, reply in known.items()}
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.left = 0

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        return self._reply(messages[-1].content if form else "", cancel)

    def _reply(self, asked: str, cancel: threading.Event | None) -> TextStream:
        if not asked:  # a translation, a follow-up: it knows none
            return Usage()
        question = fold(asked.strip().split("\n")[-1]).text
        # A follow-up comes with the question before it: what is said last is meant.
        meant = max(self.known, key=question.rfind)
        reply = self.known[meant] if meant in question else nothing()
        until = time.monotonic() + self.seconds
        while time.monotonic() < until or not self.gate.is_set():
            if cancel and cancel.is_set():
                self.left += 1
                return Usage()
            time.sleep(_POLL)
        if isinstance(reply, Exception):
            raise reply
        yield reply.text
        return Usage(tokens=reply.tokens)


@dataclass(frozen=True)
class Site:
    """A served page and what is behind it."""

    url: str
    bot: RagBot
    desk: Desk
    uploads: Uploads
    feedback: Path


def site_bot(corpus: Path, engine: FakeEngine, folder: Path) -> RagBot:
    """A bot over a folder of documents, with the fake encoder."""
    encoder = FakeEncoder()
    documents = load_corpus(corpus).documents
    chunks = [piece for document in documents for piece in chunk(document, limit=200, count=len)]
    index = build_index(folder, documents, chunks, encoder)
    return RagBot(Retriever(index, encoder), lambda: engine, top_k=4)


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncGenerator[None, None]:
    yield


@contextmanager
def served(bot: RagBot, folder: Path, starts: Sequence[Start] = ()) -> Iterator[Site]:
    """The page of a bot on a free port of this machine, until the block ends."""
    desk, ratings = Desk(bot), folder / "ratings.sqlite"
    uploads = Uploads(bot, folder / "uploads")
    page = build_page(desk, bot, uploads, Feedback(ratings), lambda: starts)
    mounted = mount_page(page_host(_life), page, uploads.limits)
    app = build_site(bot, desk, Book(), Rules(), mounted)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(_POLL)
        try:
            yield Site(f"http://127.0.0.1:{port}", bot, desk, uploads, ratings)
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            uploads.close()


# --- what is served, and the browser --------------------------------------------------------

CORPS = "華為3月對外宣告組建醫療衛生軍團。"
FRUIT = "蘋果一斤賣31元。"
BRIDGE = "The Green Hill bridge is 430 metres long."
EVIL = "<img src=x onerror=window.pwned=1> ![x](http://evil.example/x.png) ${window.pwned=2} {{x}}"
CORPUS = {
    "corps.txt": f"{CORPS}概念股隨即飆升。\n百川智能把資源集中投向醫療。\n" + "別的段落。\n" * 60,
    "fruit.txt": f"香蕉便宜。\n{FRUIT}",
    "bridge.md": f"# Bridges\n\n## Green Hill\n\n{BRIDGE} Haim designed it.\n\nIt cost a lot.",
    "evil<b>.txt": f"{EVIL} 邪惡的句子寫在這裡。</textarea><script>window.pwned=3</script>\n別的。",
    "long.txt": "\n".join(
        ("水壩叫做白鷺。" if n == 350 else "") + f"河流{n}號。" + "流水。" * 40 for n in range(700)
    ),
}
KNOWN: dict[str, Reply | Exception] = {
    "軍團": reading(CORPS, "華為3月對外宣告組建醫療衛生軍團。"),
    "蘋果": reading(FRUIT, "蘋果一斤賣31元。"),
    "green hill": reading(BRIDGE, "The Green Hill bridge is 430 metres long."),
    "邪惡": reading("邪惡的句子寫在這裡。", "邪惡的句子寫在這裡。"),
    "水壩": reading("水壩叫做白鷺。", "水壩叫做白鷺。"),
    "筆記": reading("筆記裡的貓叫小黑。", "筆記裡的貓叫小黑。"),
    "壞掉": ModelError("the model at /secret/path is away"),
    "意外": RuntimeError("/secret/path"),
    "不存在": nothing(),
}
STARTS = (
    Start("華為組建了什麼軍團？", "zh-Hant", "corps.txt", 1),
    Start("蘋果一斤賣多少元？", "zh-Hant", "fruit.txt", 2),
    Start("How long is the Green Hill bridge?", "en", "bridge.md", 1),
)
ASK_CORPS, ASK_BRIDGE = "華為的軍團？", "How long is the Green Hill bridge?"


@pytest.fixture(scope="module")
def engine() -> Oracle:
    return Oracle(KNOWN)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, engine: Oracle) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "corpus").mkdir()
    for name, text in CORPUS.items():
        (folder / "corpus" / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "incoming"))
        patch.setattr("ragbot.inquiry.probability", lambda signals: 0.9)
        patch.setattr("ragbot.inquiry.threshold", lambda: 0.5)
        bot = site_bot(folder / "corpus", engine, folder / "index")
        with served(bot, folder, STARTS) as made:
            yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, site: Site, engine: Oracle) -> Iterator[Visit]:
    """Open the page as a new visitor, or in the `context` of one who is there already."""
    trouble: list[str] = []
    contexts: list[BrowserContext] = []

    def go(
        locale: str = "zh-TW",
        width: int = 1280,
        context: BrowserContext | None = None,
        **options: Any,
    ) -> Page:
        if context is None:
            size: Any = {"width": width, "height": 800}
            context = browser.new_context(locale=locale, viewport=size, **options)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if _is_error(said) else None)
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((f"{site.url}/", "data:", "blob:"))
                else trouble.append(asked.url)
            ),
        )
        page.goto(site.url)
        page.wait_for_selector("#ragbot[data-ready=true]")
        return page

    yield go
    engine.gate.set()
    for context in contexts:
        context.close()
    assert trouble == []


def _is_error(said: ConsoleMessage) -> bool:
    # A page that is left in the middle of an answer: Gradio notes that its stream broke off.
    left = re.search(r"AbortError: signal is aborted|Connection errored out", said.text)
    return said.type == "error" and not left


def wait_until(fact: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what comes about on the server."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(_POLL)


def ask(page: Page, question: str, state: str | None = "done") -> Locator:
    """Type a question and wait for its turn to come to a state; gives the turn."""
    page.fill("#question", question)
    page.keyboard.press("Enter")
    if state:
        page.wait_for_selector(f".turn:last-child[data-state={state}]")
    return page.locator(".turn:last-child")


def overflowing(page: Page) -> bool:
    """Whether anything can be scrolled sideways."""
    return bool(
        page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('#scroll, #pane-body, #documents, #choice')]"
            ".some(one => one.scrollWidth > one.clientWidth)"
        )
    )
