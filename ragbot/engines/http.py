"""Any OpenAI-compatible server as a generator: vLLM, Ollama, llama-server, or our own llama.cpp."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ragbot.engines.base import TextStream, drain
from ragbot.errors import ModelError
from ragbot.types import Message, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 300.0  # a slow machine may read a long prompt for minutes before its first word


class HttpEngine:
    """`model` as served at `base_url`. Raises ModelError when the server is away or refuses."""

    def __init__(self, model: str, base_url: str, api_key: str = "", *, proxied: bool = True):
        self.name = model
        self.base_url = base_url
        self.api_key = api_key or "none"  # the client insists on one; keyless servers ignore it
        self._proxied = proxied
        self._extra: dict[str, Any] = {}  # what a server understands beyond the OpenAI API

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int, cancel: threading.Event | None = None
    ) -> TextStream:
        return drain(partial(self._work, messages, max_tokens), cancel)

    def _work(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        emit: Callable[[str], None],
        stop: threading.Event,
    ) -> Usage:
        with self._explained():
            return asyncio.run(self._read(messages, max_tokens, emit, stop))

    def first_token(self, messages: Sequence[Message]) -> dict[str, float]:
        """The likeliest first tokens of a reply with their log probabilities, up to 20 of them.

        Raises ModelError, also when the server does not give any.
        """
        with self._explained():
            found = asyncio.run(self._likeliest(messages))
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

    async def _read(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        emit: Callable[[str], None],
        stop: threading.Event,
    ) -> Usage:
        # A blocking read cannot be interrupted from another thread; a task can be cancelled, which
        # closes the connection, and that is what tells the server to stop.
        async with self._client() as client:
            task = asyncio.create_task(self._copy(client, messages, max_tokens, emit))
            while not task.done():
                await asyncio.wait({task}, timeout=_POLL_SECONDS)
                if stop.is_set():
                    task.cancel()
            return Usage() if task.cancelled() else task.result()

    async def _copy(
        self,
        client: AsyncOpenAI,
        messages: Sequence[Message],
        max_tokens: int,
        emit: Callable[[str], None],
    ) -> Usage:
        usage = Usage()
        reply = await client.chat.completions.create(
            model=self.name,
            messages=_as_sent(messages),
            max_tokens=max_tokens,
            temperature=0.0,
            seed=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=self._extra,
        )
        async for part in reply:
            if part.usage:
                usage = Usage(part.usage.prompt_tokens, part.usage.completion_tokens)
            if part.choices and part.choices[0].delta.content:
                emit(part.choices[0].delta.content)
        return usage

    async def _likeliest(self, messages: Sequence[Message]) -> dict[str, float]:
        async with self._client() as client:
            reply = await client.chat.completions.create(
                model=self.name,
                messages=_as_sent(messages),
                max_tokens=1,
                temperature=0.0,
                logprobs=True,
                top_logprobs=20,
                extra_body=self._extra,
            )
        logprobs = reply.choices[0].logprobs
        tokens = logprobs.content if logprobs else None
        return {top.token: top.logprob for top in tokens[0].top_logprobs} if tokens else {}

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


def _as_sent(messages: Sequence[Message]) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _refusal(base_url: str, model: str, error: object) -> str:
    status = getattr(error, "status_code", 0)
    remedy = {
        401: "set RAGBOT_API_KEY",
        403: "set RAGBOT_API_KEY to a key that may use it",
        404: f"see whether it serves the model {model!r} and whether its address ends in /v1",
    }.get(status, "see its log")
    return f"The server at {base_url} refused ({status}: {_message(error)}): {remedy}."


def _message(error: object) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:200]
