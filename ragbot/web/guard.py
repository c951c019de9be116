"""Who may ask for what, how often and how much: ASGI middleware in front of the API and the page.

The key guards the API under /v1/ alone. The page is open to whoever reaches the port, and so are
health and figures. None of them is open to another site's page in a visitor's browser: under
another name than the server's own, or for an origin that is not its own, nothing is answered. But
health is told under any name: a balancer has its own for each copy, and there are no texts in it.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragbot.web.api.wire import failure, respond

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKING = frozenset({"/v1/chat/completions", "/v1/search"})
_HEALTH = "/healthz"
_UPLOAD = "/gradio_api/upload"
_MINUTE, _TINY = 60.0, 1e-6  # seconds
_CLOSE = {"Connection": "close"}
_CLIENTS = 10_000  # above which those who are silent are looked for


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed. `origins` are those of other sites (https://chat.example.org) that may use
    the server, or under which a proxy serves it; `local` is that it has the names of this machine
    only."""

    key: str = ""
    rate: int = 30  # questions and searches a minute and client; 0 is no limit
    origins: tuple[str, ...] = ()
    local: bool = True
    body: int = 1_000_000  # bytes of a request to the API
    page_body: int = 8_000_000  # of one of the page's, which may hold a long talk
    upload: int = 60_000_000
    seconds: float = 30.0  # for a body to come in; an upload may take ten times as long

    def most(self, path: str) -> int:
        """How many bytes a body may have there."""
        if path == _UPLOAD:
            return self.upload
        return self.page_body if path.startswith("/gradio_api/") else self.body

    def patience(self, path: str) -> float:
        """How many seconds a body may be in coming."""
        return self.seconds * (10 if path == _UPLOAD else 1)


class Rates:
    """A bucket of `rate` tokens for each client, which fills up within a minute.

    Of a client is kept when his bucket will be full: no more is needed, and who is silent for a
    minute need not be known.
    """

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.monotonic):
        self._rate, self._clock = rate, clock
        self._full_at: dict[str, float] = {}

    def wait(self, client: str) -> float:
        """Take a token, 0.0; when there is none, the seconds until there will be one."""
        now, each = self._clock(), _MINUTE / self._rate
        if len(self._full_at) > _CLIENTS:
            self._full_at = {who: full for who, full in self._full_at.items() if full > now}
        full = max(self._full_at.get(client, now), now) + each
        if full > now + _MINUTE + _TINY:
            return full - now - _MINUTE
        self._full_at[client] = full
        return 0.0


class Guard:
    """ASGI middleware that lets through what its rules allow, and answers the rest itself."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self._app, self._rules = app, rules
        self._rates = Rates(rules.rate)
        self._names = _LOCAL | {urlsplit(origin).hostname or "" for origin in rules.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            exchange = _Exchange(scope, receive, send, self._rules)
            refusal = self._refusal(scope, Headers(scope=scope))
            try:
                await (refusal or self._app)(scope, exchange.receive, exchange.send)
            except Exception:
                if not exchange.over:  # else it is only that the body did not come
                    raise

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, rules = scope["path"], self._rules
        if rules.local and path != _HEALTH and not self._has_name(headers):
            said = "This server has another name: open it as http://localhost, with its port."
            return respond(403, failure(403, said, "wrong_host"))
        if scope["method"] not in _SAFE and not self._at_home(headers):
            said = "Pages of another site may not use this server: `--origin` lets them."
            return respond(403, failure(403, said, "wrong_origin"))
        if rules.key and path.startswith("/v1/") and not self._has_key(headers):
            said = "The API key is missing or wrong: send it as `Authorization: Bearer KEY`."
            asked = {"WWW-Authenticate": "Bearer"}
            return respond(401, failure(401, said, "invalid_api_key"), asked)
        if int(headers.get("content-length", "0")) > rules.most(path):
            return _too_large(rules.most(path))
        if rules.rate and scope["method"] == "POST" and path in _ASKING:
            return self._too_often(scope)
        return None

    def _has_name(self, headers: Headers) -> bool:
        return _hostname(headers.get("host", "")) in self._names

    def _at_home(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:  # no browser; those send it with whatever may change something
            return True
        if origin in self._rules.origins:
            return True
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1")  # as it came: headers are read so
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._rules.key.encode())

    def _too_often(self, scope: Scope) -> Response | None:
        wait = math.ceil(self._rates.wait(scope["client"][0] if scope.get("client") else ""))
        if not wait:
            return None
        said = f"More than {self._rules.rate} requests a minute: go on in {wait} seconds."
        return respond(429, failure(429, said, "rate_limit_exceeded"), {"Retry-After": str(wait)})


class _Exchange:
    """A request's body as it comes in, and the answer to it.

    A body that is too large or too long in coming is answered here, whatever the app makes of its
    end. Behind an answer to one that nobody says the length of, the connection is closed: the rest
    would be read for as long as it comes.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, rules: Rules):
        self._scope, self._receive, self._send = scope, receive, send
        self._left = self._most = rules.most(scope["path"])
        self._end = time.monotonic() + rules.patience(scope["path"])
        self._endless = "transfer-encoding" in Headers(scope=scope)
        self._complete = self._begun = False
        self.over = False  # answered here, or nobody waits for an answer

    async def receive(self) -> Message:
        """The next part of the body. Raises HTTPException when it is given up."""
        if self._complete:
            return await self._receive()  # what comes now is that the client hangs up
        try:
            left = max(0.0, self._end - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:  # another than TimeoutError on 3.10
            raise await self._refused(_too_slow()) from None
        self.over = self.over or message["type"] == "http.disconnect"
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise await self._refused(_too_large(self._most))
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, if there is not another one by now."""
        if self.over:
            return
        self._begun = True
        if message["type"] == "http.response.start" and self._endless and not self._complete:
            MutableHeaders(scope=message).update(_CLOSE)
        await self._send(message)

    async def _refused(self, refusal: Response) -> HTTPException:
        if not self._begun:
            await refusal(self._scope, self._receive, self.send)
        self.over = True
        return HTTPException(refusal.status_code)


def _too_large(most: int) -> Response:
    said = f"The request has more than {most:,} bytes: send less at once."
    return respond(413, failure(413, said, "request_too_large"), _CLOSE)


def _too_slow() -> Response:
    said = "The request took too long to come in."
    return respond(408, failure(408, said, "request_timeout"), _CLOSE)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
