"""llama.cpp inside this process, for GGUF files.

xllamacpp's server listens on a loopback port of its own choosing, under a key that only this
object knows, and is spoken to as any other OpenAI-compatible server is. Its direct calls are not
used: they cannot be cancelled while the prompt is being read, the connection can.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.engines.http import HttpEngine
from ragbot.errors import ModelError
from ragbot.types import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# A closed connection is noticed between two batches. Measured on two cores (1.5B, Q4_K_M): batches
# of 2048 / 256 / 128 free the model 17 / 1.6 / 1.7 s after the reader leaves, and read the prompt
# at 86 / 86 / 84 tokens a second.
_BATCH = 128
_GGUF_MAGIC = b"GGUF"
_POLL_SECONDS = 0.1

# Prompts of one kind begin alike, with the same instructions and examples, and end with what is
# asked. Each kind has a slot of its own, so that one does not push another's beginning out.
_SLOTS = 6
_PROBABILITIES = 12  # alternatives told for a token

# Stands for what is asked while only the beginning is read. No prompt's last message starts so.
_NOTHING = "\u2400"


class LlamaCppEngine(HttpEngine):
    """The GGUF file at `path`. Raises ModelError when it cannot be loaded.

    The beginning of a prompt, all but its last message, is read once and kept. With `prompt_cache`
    so is what the last message has in common with the one before; its rest is then read in other
    batches, which round otherwise, and a near tie between two words may turn: of 14 questions asked
    in two orders, 3 were answered in other words. Without it the same messages give the same text,
    whatever was asked before.
    """

    def __init__(self, path: Path, *, context: int, threads: int, prompt_cache: bool = True):
        import xllamacpp

        _check(path)
        key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context * _SLOTS
        params.n_batch = params.n_ubatch = _BATCH
        params.n_parallel = _SLOTS
        params.kv_unified = False
        params.cpuparams.n_threads = threads or os.cpu_count() or 1
        params.api_keys = [key]
        params.ui = False
        params.warmup = False
        params.cache_ram_mib = 0
        params.verbosity = -1
        try:
            self._server = _started(params)  # kept: it stops when it is collected
        except RuntimeError as error:
            raise ModelError(
                f"llama.cpp cannot load {path} ({error}): it needs a complete GGUF chat model."
            ) from error
        super().__init__(path.stem, f"{self._server.listening_address}/v1", key, proxied=False)
        self._prompt_cache = prompt_cache
        self._slots = _Slots(_SLOTS)
        self._read_in: dict[int, str] = {}  # the beginning that each slot holds

    def _request(self, messages: Sequence[Message], max_tokens: int, form: str) -> dict[str, Any]:
        request = super()._request(messages, max_tokens, form)
        extra: dict[str, Any] = {"grammar": form} if form else {}
        extra |= {"id_slot": self._slots.of(messages[:-1]), "cache_prompt": True}
        return request | {
            "logprobs": True,
            "top_logprobs": _PROBABILITIES,
            "extra_body": extra,
        }

    async def _prepare(self, client: AsyncOpenAI, request: dict[str, Any]) -> None:
        """Without a prompt cache, leave of a prompt no more than its beginning in its slot."""
        if self._prompt_cache:
            return
        messages, extra = request["messages"], request["extra_body"]
        beginning = json.dumps(messages[:-1])
        # Read from nothing unless it lies there already: so it is always cut into batches alike.
        read = self._read_in.get(extra["id_slot"]) == beginning
        self._read_in.pop(extra["id_slot"], None)  # unknown, should this be broken off
        await client.chat.completions.create(
            **request
            | {
                "messages": [*messages[:-1], {"role": "user", "content": _NOTHING}],
                "max_tokens": 1,
                "extra_body": {"id_slot": extra["id_slot"], "cache_prompt": read},
            }
        )
        self._read_in[extra["id_slot"]] = beginning


class _Slots:
    """Which slot each beginning of a prompt has; the one not used for longest makes room."""

    def __init__(self, count: int):
        self._slots: dict[str, int] = {}
        self._free = list(range(count))
        self._lock = threading.Lock()

    def of(self, beginning: Sequence[Message]) -> int:
        """The slot for prompts that begin with these messages."""
        key = repr(beginning)
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is None:
                slot = self._free.pop(0) if self._free else self._slots.pop(next(iter(self._slots)))
            self._slots[key] = slot  # now the last one used
            return slot


def _started(params: Any) -> Any:
    """The server, once its model is loaded. Raises RuntimeError.

    It is loaded by a thread of its own: a Ctrl-C in the middle of it left the process waiting for
    ever, and here it is only the waiting that is interrupted.
    """
    import xllamacpp

    outcome: list[Any] = []

    def load() -> None:
        try:
            outcome.append(xllamacpp.Server(params))
        except RuntimeError as error:
            outcome.append(error)

    loader = threading.Thread(target=load, daemon=True, name="ragbot-load")
    loader.start()
    while loader.is_alive():
        loader.join(_POLL_SECONDS)
    if isinstance(outcome[0], RuntimeError):
        raise outcome[0]
    return outcome[0]


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if magic != _GGUF_MAGIC:
        raise ModelError(f"The model file {path} is not a GGUF file: name one with --llm.")
