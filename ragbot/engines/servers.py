"""Several servers that serve one model, as one generator.

Each prompt goes to the server with the fewest at work. One that fails rests for some seconds, and
has to say that it is well before it is asked again. What it had written by then is thrown away, and
the next one asked from the beginning: a reply is passed on when it is whole.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ragbot.engines.base import TextStream
from ragbot.engines.http import HttpEngine, Limits
from ragbot.errors import ModelError, ServerError
from ragbot.tracing import note
from ragbot.types import Message, Usage

LIMITS = Limits(connect=3.0, first=30.0, further=15.0, retries=0)  # of each: another is waiting
_REST_SECONDS, _LONGEST_REST = 5.0, 60.0  # after the first failure, and after many in a row

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Server:
    engine: HttpEngine
    at_work: int = 0
    failures: int = 0  # in a row
    rests_until: float = 0.0

    def rest(self) -> None:
        seconds = _REST_SECONDS * 2 ** max(0, self.failures - 1)
        self.rests_until = time.monotonic() + min(seconds, _LONGEST_REST)


class Servers:
    """As many engines as there are servers; may be used from several threads."""

    def __init__(self, engines: Sequence[HttpEngine]):
        self.name = engines[0].name
        self._servers = [_Server(engine) for engine in engines]
        self._lock = threading.Lock()

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        """The reply, all at once. Raises ModelError when no server gives a whole one, or one says
        that the prompt is at fault."""
        failed: dict[_Server, ServerError] = {}
        while server := self._chosen(failed):
            asked = server.engine.stream(messages, max_tokens=max_tokens, cancel=cancel, form=form)
            try:
                with self._at_work(server, cancel):
                    text, usage = _whole(asked)
            except ServerError as error:
                failed[server] = error
                continue
            for failure in failed.values():
                _log.warning("%s The one at %s stood in.", failure, server.engine.base_url)
            note({"ragbot.failed_servers": len(failed)})
            yield text
            return usage
        reasons = "; ".join(_clause(error) for error in failed.values())
        raise ModelError(f"None of {len(failed)} servers gave an answer: {reasons}.")

    def _chosen(self, tried: Container[_Server]) -> _Server | None:
        """The one with the fewest at work of those that are left; who rests is the last resort."""
        with self._lock:
            now = time.monotonic()
            left = [server for server in self._servers if server not in tried]
            if not left:
                return None
            server = min(left, key=lambda server: (server.rests_until > now, server.at_work))
            server.at_work += 1
            if server.failures:
                server.rest()  # tried by one alone
            return server

    @contextmanager
    def _at_work(self, server: _Server, cancel: threading.Event | None) -> Iterator[None]:
        """While a chosen server is asked, which is noted to have failed or to be well."""
        failures = server.failures
        try:
            if failures:
                server.engine.check_health(cancel)
            yield
            failures = 0
        except ServerError:
            failures += 1
            raise
        except ModelError:  # the prompt is at fault
            failures = 0
            raise
        finally:
            with self._lock:
                server.at_work -= 1
                server.failures, server.rests_until = failures, 0.0
                if failures:
                    server.rest()


def _whole(reply: TextStream) -> tuple[str, Usage]:
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(reply))
        except StopIteration as end:
            return "".join(pieces), end.value


def _clause(error: ServerError) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
