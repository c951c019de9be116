"""What browsers are told to hold the page to: its own scripts, its own host, no frame around it.

Markup that got into the page in spite of all escaping would find its scripts and event handlers
refused: what runs has a mark that is new with each load, put into Gradio's template here.
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Evaluating stays allowed: it is how Gradio runs the page's own event handlers.
_PAGE = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob: data:",
        "manifest-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
_REST = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SCRIPT = re.compile(rb"<script(?=[\s>])")


class Shielded:
    """ASGI middleware that adds the headers, and the mark to the scripts of an HTML page."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page: _Page | None = None

        async def sending(message: Message) -> None:
            nonlocal page
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = _REST
                if headers.get("content-type", "").startswith("text/html"):
                    page = _Page(message)
                    return
            if page is None:
                await send(message)
            elif page.takes(message):
                for part in page.marked():
                    await send(part)

        await self._app(_plain(scope), receive, sending)


class _Page:
    """An HTML page that is kept until all of it is there."""

    def __init__(self, start: Message):
        self._start, self._body = start, b""

    def takes(self, message: Message) -> bool:
        """Whether that was the last part of it."""
        self._body += message.get("body", b"")
        return not message.get("more_body", False)

    def marked(self) -> tuple[Message, Message]:
        """The page with a new mark."""
        nonce = secrets.token_urlsafe(16)
        # What Gradio writes into its scripts has no `<` in it, so that each of these is a tag.
        body = _SCRIPT.sub(f'<script nonce="{nonce}"'.encode(), self._body)
        headers = MutableHeaders(scope=self._start)
        headers["Content-Security-Policy"] = _PAGE.format(nonce=nonce)
        headers["Content-Length"] = str(len(body))
        return self._start, {"type": "http.response.body", "body": body, "more_body": False}


def _plain(scope: Scope) -> Scope:
    """For the page itself, a request that asks for no compression: it could not be marked."""
    if scope["path"] == "/":
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
    return scope
