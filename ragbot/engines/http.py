"""Any OpenAI-compatible server as a generator: vLLM, Ollama, llama-server, or our own llama.cpp.

One server here, several in `servers`; what a server may lack is the business of `abilities`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ragbot.engines.abilities import Abilities, grammar
from ragbot.engines.base import TextStream, drain, plain
from ragbot.errors import ModelError, ServerError
from ragbot.tracing import headers, note
from ragbot.types import Message, Token, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

PROBABILITIES = 12  # alternatives told for a token

_POLL_SECONDS, _HEALTH_SECONDS = 0.1, 2.0
_AT_FAULT = (400, 413, 422)  # statuses of a question that no other server would take, either
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_BROKEN = (None, "abort", "error")  # reasons of an end that is none


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds in which a server has to be reached, to write its first word, and each further one;
    and how often it is tried again when it cannot be reached."""

    connect: float = 10.0
    first: float = 300.0  # a slow machine may read a long prompt for minutes before its first word
    further: float = 300.0
    retries: int = 1


class HttpEngine:
    """`model` as served at `base_url`. Raises ServerError when the server is away or breaks off,
    ModelError when it refuses."""

    provider = "openai"  # whose API it speaks

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key: str = "",
        *,
        proxied: bool = True,
        limits: Limits = Limits(),
    ):
        self.name = model
        self.base_url = base_url
        self.api_key = api_key or "none"  # the client insists on one; keyless servers ignore it
        self._proxied = proxied
        self._limits = limits
        self._abilities = Abilities(base_url)

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        request = self._request(messages, max_tokens, form)
        note({"gen_ai.provider.name": self.provider, "server.address": self.base_url})
        return drain(partial(self._work, request), cancel)

    def check_health(self, cancel: threading.Event | None = None) -> None:
        """Raise ServerError unless the server is there within two seconds."""
        import openai

        async def listed(client: AsyncOpenAI) -> Usage:
            with suppress(openai.NotFoundError):  # it is there, and tells nobody what it serves
                await client.with_options(timeout=_HEALTH_SECONDS, max_retries=0).models.list()
            return Usage()

        for _ in drain(lambda emit, stop: self._run(listed, stop) or Usage(), cancel):
            pass

    def _request(self, messages: Sequence[Message], max_tokens: int, form: str) -> dict[str, Any]:
        """What is asked of the server."""
        return {
            "model": self.name,
            "messages": plain(messages),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": PROBABILITIES,
            "extra_headers": headers(),
            "extra_body": grammar(form),
        }

    def _work(
        self,
        request: dict[str, Any],
        emit: Callable[[str], None],
        stop: threading.Event,
    ) -> Usage:
        text = ""

        def written(piece: str) -> None:
            nonlocal text
            text += piece
            emit(piece)

        async def copied(client: AsyncOpenAI) -> Usage:
            async with self._prepared(client, request):
                copy = partial(_copy, client, written, self._limits)
                return await self._abilities.ask(copy, request | _STREAMED)

        usage = self._run(copied, stop)
        if usage is None:
            return Usage()
        self._abilities.compare(request, text, likely=bool(usage.tokens))
        return usage

    def first_token(self, messages: Sequence[Message]) -> Mapping[str, float]:
        """The likeliest first tokens of a reply with their log probabilities, up to 20 of them.

        Raises ModelError, also when the server does not give any.
        """
        request = self._request(messages, 1, "") | {"top_logprobs": 20}

        async def likeliest(client: AsyncOpenAI) -> Mapping[str, float]:
            async with self._prepared(client, request):
                first = _tokens((await client.chat.completions.create(**request)).choices[0])
            return first[0].likeliest if first else {}

        found = self._run(likeliest)
        if not found:
            raise ModelError(
                f"The server at {self.base_url} gives no token probabilities: use another for this."
            )
        return found

    # --- asking ------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the client raises, as a ModelError that says what to do."""
        import openai

        at = self.base_url
        try:
            yield
        except (openai.APITimeoutError, asyncio.TimeoutError) as error:
            remedy = "see whether it is overloaded, then ask again"
            raise ServerError(f"The server at {at} did not answer in time: {remedy}.") from error
        except openai.APIConnectionError as error:
            raise ServerError(
                f"No server answers at {at}: start it, or correct RAGBOT_BASE_URL."
            ) from error
        except openai.APIStatusError as error:
            kind = ModelError if error.status_code in _AT_FAULT else ServerError
            raise kind(_refusal(at, self.name, error)) from error
        except (openai.APIError, _BrokenOffError) as error:
            raise ServerError(
                f"The server at {at} broke off ({_message(error)}): see its log."
            ) from error

    def _run(
        self,
        work: Callable[[AsyncOpenAI], Coroutine[Any, Any, T]],
        stop: threading.Event | None = None,
    ) -> T | None:
        """What `work` gives; None once `stop` is set. Raises ModelError."""
        with self._explained():
            return asyncio.run(self._watched(work, stop))

    async def _watched(
        self, work: Callable[[AsyncOpenAI], Coroutine[Any, Any, T]], stop: threading.Event | None
    ) -> T | None:
        # A blocking read cannot be interrupted from another thread; a task can be cancelled, which
        # closes the connection, and that is what tells the server to stop.
        async with self._client() as client:
            task = asyncio.create_task(work(client))
            while not task.done():
                await asyncio.wait({task}, timeout=_POLL_SECONDS)
                if stop and stop.is_set():
                    task.cancel()
            return None if task.cancelled() else task.result()

    @asynccontextmanager
    async def _prepared(self, client: AsyncOpenAI, request: dict[str, Any]) -> AsyncIterator[None]:
        """While a server is asked: what has to be done before and after it, which is nothing."""
        yield

    def _client(self) -> AsyncOpenAI:
        # The client looks at httpx where it is loaded, also half loaded by another thread.
        import httpx  # noqa: F401
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key,
            max_retries=self._limits.retries,
            timeout=openai.Timeout(self._limits.first, connect=self._limits.connect),
            # A model on this machine must not be looked for through a proxy.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=self._proxied),
        )


class _BrokenOffError(Exception):
    """A reply that came to no end."""


async def _copy(
    client: AsyncOpenAI, emit: Callable[[str], None], limits: Limits, request: dict[str, Any]
) -> Usage:
    usage, tokens, end = Usage(), list[Token](), None
    async for part in _parts(client, limits, request):
        if part.usage:
            details = part.usage.prompt_tokens_details
            known = (details and details.cached_tokens) or 0
            usage = Usage(
                part.usage.prompt_tokens, part.usage.completion_tokens, reused_tokens=known
            )
        if not part.choices:
            continue
        choice = part.choices[0]
        tokens += _tokens(choice)
        if choice.delta.content:
            emit(choice.delta.content)
        end = choice.finish_reason or end
    if end in _BROKEN:
        raise _BrokenOffError(f"its reply ends with {end or 'nothing'}")
    return replace(usage, tokens=tuple(tokens))


async def _parts(
    client: AsyncOpenAI, limits: Limits, request: dict[str, Any]
) -> AsyncIterator[Any]:
    """The parts of a streamed reply, each in its time."""
    import httpx
    import openai

    asked = client.chat.completions.create(**request)
    parts, patience = aiter(await asyncio.wait_for(asked, limits.first)), limits.first
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), patience)
        except StopAsyncIteration:
            return
        except openai.APITimeoutError:
            raise
        except (openai.APIConnectionError, httpx.TransportError) as error:
            raise _BrokenOffError("the connection was lost") from error
        yield part
        patience = limits.further


def _tokens(choice: Any) -> list[Token]:
    """The tokens that a choice tells the probabilities of."""
    places = choice.logprobs.content if choice.logprobs else None
    return [
        Token(place.token, {top.token: top.logprob for top in place.top_logprobs})
        for place in places or ()
    ]


def _refusal(base_url: str, model: str, error: object) -> str:
    status = getattr(error, "status_code", 0)
    remedy = {
        401: "set RAGBOT_LLM_API_KEY",
        403: "set RAGBOT_LLM_API_KEY to a key that may use it",
        404: f"see whether it serves the model {model!r} and whether its address ends in /v1",
    }.get(status, "see its log")
    return f"The server at {base_url} refused ({status}: {_message(error)}): {remedy}."


def _message(error: object) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:200]
