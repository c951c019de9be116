"""`ragbot serve`: from settings to a running server, and its end.

The page is there as soon as the index is; the generator is loaded behind it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from ragbot import console
from ragbot.bot import RagBot
from ragbot.config import Config
from ragbot.database import Database
from ragbot.errors import ConfigError
from ragbot.tracing import TEXTS
from ragbot.waiting import progress
from ragbot.web.chores import Chores
from ragbot.web.desk import Bounds
from ragbot.web.feedback import Feedback
from ragbot.web.guard import Rules
from ragbot.web.observe import Book, WatchedDesk, log_as_json
from ragbot.web.own.claim import claimed, vacate
from ragbot.web.own.shelf import Shelf
from ragbot.web.own.uploads import Uploads
from ragbot.web.page.layout import build_page, mount_page
from ragbot.web.site import build_site, page_host
from ragbot.workspace import index_store, questions_at_once

_PORTS = 65535
_ORIGIN = re.compile(r"https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?")
# A balancer, and most clients, go on using a connection for up to a minute: closed sooner, it can
# be closed just as they send on it, and their request is lost.
_IDLE_SECONDS = 75
_GRACE_SECONDS = 1  # for what was cancelled to end
FEEDBACK = "feedback.sqlite"


@dataclass(frozen=True, slots=True)
class Options:
    """`rate` bounds the questions and searches a minute of one client of the API, 0 does not;
    `origins` are those of other sites that may use the server, or that it is served under."""

    rate: int = 30
    origins: Sequence[str] = ()
    log_questions: bool = False


def serve(
    config: Config,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    options: Options = Options(),
) -> None:
    """Serve the page and the API until Ctrl-C, which is raised as KeyboardInterrupt.

    Port 0 takes a free one. Raises ConfigError for a bad or taken address or a bad origin,
    CorpusError, StoreError, ModelError.
    """
    known = tuple(map(_origin, options.origins))
    if options.log_questions:
        os.environ[TEXTS] = "true"
    with closing(listen(host, port)) as listener:
        rules = Rules(key=config.api_key, rate=options.rate, origins=known, local=_local(listener))
        with progress() as report:
            bot = RagBot.from_corpus(config=config, report=report)
        book = Book(log_questions=options.log_questions)
        with _site(bot, config, book, rules) as site:
            log_as_json()
            run(site, listener)


@contextmanager
def _site(bot: RagBot, config: Config, book: Book, rules: Rules) -> Iterator[ASGIApp]:
    """The site over a bot; visitors' files go with it."""
    with _incoming(config.cache) as incoming:
        folder = index_store(config, bot.retriever.encoder).folder
        feedback = Feedback(config.database or folder / FEEDBACK)
        desk = WatchedDesk(bot, book, Bounds(at_once=questions_at_once(config)))
        with closing(_uploads(bot, config)) as uploads:
            chores = Chores(bot, desk, uploads, folder, incoming)
            blocks = build_page(desk, bot, uploads, feedback, chores.starts)
            page = mount_page(page_host(chores.life), blocks, uploads.limits)
            yield build_site(bot, desk, book, rules, page)


def _uploads(bot: RagBot, config: Config) -> Uploads:
    shelf = Shelf(Database(config.database)) if config.database else None
    return Uploads(bot, config.cache / "uploads", shelf=shelf)


@contextmanager
def _incoming(cache: Path) -> Iterator[Path]:
    """Gradio kept to this machine, and to a folder that goes with the process."""
    folder, claim = claimed(cache / "incoming")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        vacate(folder, claim)


# --- addresses -------------------------------------------------------------------------------


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigError."""
    if not 0 <= port <= _PORTS:
        raise ConfigError(f"There is no port {port}: name one up to {_PORTS}.")
    try:
        found = socket.getaddrinfo(host or ".", port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0])
    except (OSError, UnicodeError) as error:
        raise ConfigError(_unusable(host, port, error)) from error


def _unusable(host: str, port: int, error: OSError | UnicodeError) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"Port {port} is taken: stop what has it, or name another with --port."
    if number in (errno.EACCES, errno.EPERM):
        return f"Port {port} is not for everybody: name one above 1023 with --port."
    return f"{host!r} is no address of this machine: use 127.0.0.1, or 0.0.0.0 for all it has."


def _local(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _origin(text: str) -> str:
    """What a browser sends as the origin of a site. Raises ConfigError."""
    origin = text.strip().rstrip("/").lower()
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(f"{text!r} is no origin: write it as https://chat.example.org.")
    return origin


def _announcement(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    everywhere = ipaddress.ip_address(host.partition("%")[0]).is_unspecified
    shown = "localhost" if everywhere else f"[{host}]" if ":" in host else host
    reach = "" if _local(listener) else ", and open to the network"
    return f"ragbot is at http://{shown}:{port}{reach}; Ctrl-C stops it."


# --- running ---------------------------------------------------------------------------------


def run(site: ASGIApp, listener: socket.socket) -> None:
    """Serve a site until it is told to stop. Raises KeyboardInterrupt then, if it was by Ctrl-C."""
    config = uvicorn.Config(
        site,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    _Server(config, _announcement(listener)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is there; does not wait for answers that nobody will read when it stops."""

    def __init__(self, config: uvicorn.Config, announcement: str):
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        console.out().print(self._announcement, markup=False)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in list(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)
