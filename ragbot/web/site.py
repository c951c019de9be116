"""The whole site as one ASGI application: the Gradio page, the API beside it, the guard in front.

Of Gradio only what the page needs is reachable; its own API, its proxy for other hosts, its
fetching of addresses and its monitoring are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ragbot.bot import RagBot
from ragbot.web.api.endpoints import build_api
from ragbot.web.desk import Desk
from ragbot.web.guard import Guard, Rules
from ragbot.web.observe import Book, Observed
from ragbot.web.shield import Shielded

Life = Callable[[FastAPI], AbstractAsyncContextManager[None]]
"""What is done from the start of the server to its end."""

_OF_PAGE = re.compile(
    r"/(?:"
    r"|(?:assets|static)/.+"
    r"|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|gradio_api/(?:queue/(?:join|data)|run/predict|heartbeat/\w+|cancel|reset|startup-events"
    r"|upload|upload_progress|component_server|file=(?!\w{2,}:).+)"
    r")/?"
)


def build_site(bot: RagBot, desk: Desk, book: Book, rules: Rules, page: ASGIApp) -> ASGIApp:
    """The site: a page mounted on its host, and the API, observed and guarded."""
    api = build_api(desk, bot, book, keyed=bool(rules.key))
    site: ASGIApp = Guard(_Site(page, api), rules)
    if rules.origins:
        site = CORSMiddleware(
            site,
            allow_origins=rules.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return Observed(Shielded(site), book)


def page_host(life: Life) -> FastAPI:
    """The application to mount the page on, which lives as `life` says."""
    app = FastAPI(lifespan=life, openapi_url=None)
    # Gradio lets whatever origin asks read its answers, unless its host has an opinion.
    app.add_middleware(CORSMiddleware, allow_origins=[])
    return app


class _Site:
    """Gives each request to the page or to the API."""

    def __init__(self, page: ASGIApp, api: ASGIApp):
        self._page, self._api = page, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        of_page = scope["type"] == "lifespan" or _OF_PAGE.fullmatch(scope["path"])
        await (self._page if of_page else self._api)(scope, receive, send)
