"""Any OpenAI-compatible server as a generator: vLLM, Ollama, llama-server, or our own llama.cpp."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ragbot.engines.base import TextStream, drain, plain
from ragbot.errors import ModelError
from ragbot.types import Message, Token, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 10.0
_OPENING = 8  # tokens whose alternatives are kept: a label and what follows it
_READ_SECONDS = 300.0  # a slow machine may read a long prompt for minutes before its first word


class HttpEngine:
    """`model` as served at `base_url`. Raises ModelError when the server is away or refuses."""

    def __init__(self, model: str, base_url: str, api_key: str = "", *, proxied: bool = True):
        self.name = model
        self.base_url = base_url
        self.api_key = api_key or "none"  # the client insists on one; keyless servers ignore it
        self._proxied = proxied

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        request = self._request(messages, max_tokens, form)
        return drain(partial(self._work, request), cancel)

    def _request(self, messages: Sequence[Message], max_tokens: int, form: str) -> dict[str, Any]:
        """What is asked of the server; no grammar is, which the OpenAI API does not know."""
        return {
            "model": self.name,
            "messages": plain(messages),
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "seed": 0,
        }

    def _work(
        self,
        request: dict[str, Any],
        emit: Callable[[str], None],
        stop: threading.Event,
    ) -> Usage:
        async def copied(client: AsyncOpenAI) -> Usage:
            async with self._prepared(client, request):
                return await _copy(client, request, emit)

        return self._run(copied, stop) or Usage()

    def first_token(self, messages: Sequence[Message]) -> Mapping[str, float]:
        """The likeliest first tokens of a reply with their log probabilities, up to 20 of them.

        Raises ModelError, also when the server does not give any.
        """
        request = self._request(messages, 1, "") | {"logprobs": True, "top_logprobs": 20}

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

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the client raises, as a ModelError that says what to do."""
        import openai

        try:
            yield
        except openai.APITimeoutError as error:
            raise ModelError(
                f"The server at {self.base_url} did not answer in time: see whether it is "
                "overloaded, then ask again."
            ) from error
        except openai.APIConnectionError as error:
            raise ModelError(
                f"No server answers at {self.base_url}: start it, or correct RAGBOT_BASE_URL."
            ) from error
        except openai.APIStatusError as error:
            raise ModelError(_refusal(self.base_url, self.name, error)) from error
        except openai.APIError as error:
            raise ModelError(
                f"The server at {self.base_url} broke off ({error.message}): see its log."
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
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key,
            max_retries=1,
            timeout=openai.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            # A model on this machine must not be looked for through a proxy.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=self._proxied),
        )


async def _copy(client: AsyncOpenAI, request: dict[str, Any], emit: Callable[[str], None]) -> Usage:
    usage = Usage()
    opening: list[Token] = []
    reply = await client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    async for part in reply:
        if part.usage:
            details = part.usage.prompt_tokens_details
            known = (details and details.cached_tokens) or 0
            usage = Usage(
                part.usage.prompt_tokens, part.usage.completion_tokens, reused_tokens=known
            )
        if not part.choices:
            continue
        if len(opening) < _OPENING:
            opening += _tokens(part.choices[0])
        if part.choices[0].delta.content:
            emit(part.choices[0].delta.content)
    return replace(usage, opening=tuple(opening[:_OPENING]))


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
