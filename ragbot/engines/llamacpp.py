"""llama.cpp inside this process, for GGUF files.

xllamacpp's server listens on a loopback port of its own choosing, under a key that only this
object knows, and is spoken to as any other OpenAI-compatible server is. Its direct calls are not
used: they cannot be cancelled while the prompt is being read, the connection can.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.engines.http import HttpEngine
from ragbot.engines.states import States
from ragbot.engines.vocabulary import repeated_token
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

# How many prompts are in work at once; the model's threads are the same for all of them.
_SLOTS = 3

# Stands for what is asked while only the beginning is read. No prompt's last message starts so.
_NOTHING = "\u2400"

_SLOT_SECONDS = 60.0  # to save or to restore what a slot holds


class LlamaCppEngine(HttpEngine):
    """The GGUF file at `path`. Raises ModelError when it cannot be loaded.

    Prompts of one kind begin alike, with the same instructions and examples, and end with what is
    asked. The beginning, all but the last message, is read once and kept in a file in `folder`;
    each prompt starts from there. So a prompt is always cut into the same batches, which round
    alike: the same messages give the same text, whatever was asked before. What is asked at the
    same moment shares batches, and there the last digits of a probability may differ.
    """

    provider = "llama.cpp"

    def __init__(self, path: Path, *, context: int, threads: int, folder: Path | None = None):
        import xllamacpp

        _check(path)
        key = secrets.token_urlsafe(24)
        self._states = _states(folder, path, context)
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
        params.fit_params = False  # loads the model's head once more, to see what memory would do
        params.cache_ram_mib = 0
        params.slot_save_path = f"{self._states.folder}{os.sep}"
        params.verbosity = -1
        try:
            self._server = _started(params)  # kept: it stops when it is collected
        except RuntimeError as error:
            raise ModelError(
                f"llama.cpp cannot load {path} ({error}): it needs a complete GGUF chat model."
            ) from error
        self._address = self._server.listening_address
        super().__init__(path.stem, f"{self._address}/v1", key, proxied=False)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(_SLOTS):
            self._free.put(slot)

    def _request(self, messages: Sequence[Message], max_tokens: int, form: str) -> dict[str, Any]:
        request = super()._request(messages, max_tokens, form)
        extra: dict[str, Any] = {"grammar": form} if form else {}
        return request | {"extra_body": extra | {"cache_prompt": True}}

    @contextmanager
    def _slot(self, request: dict[str, Any]) -> Iterator[int]:
        """A slot that nobody else uses meanwhile."""
        slot = self._free.get()
        request["extra_body"]["id_slot"] = slot
        try:
            yield slot
        finally:
            self._free.put(slot)

    @asynccontextmanager
    async def _prepared(self, client: AsyncOpenAI, request: dict[str, Any]) -> AsyncIterator[None]:
        """A slot that holds what prompts of this kind begin with."""
        with self._slot(request) as slot:
            beginning = _beginning(request["messages"])
            if not self._restored(slot, _key(beginning)):
                await self._read_in(client, request | {"messages": beginning})
            yield

    async def _read_in(self, client: AsyncOpenAI, request: dict[str, Any]) -> None:
        """Read a prompt anew, and keep what comes of it."""
        slot, key = request["extra_body"]["id_slot"], _key(request["messages"])
        extra = {"id_slot": slot, "cache_prompt": False}
        await client.chat.completions.create(**request | {"max_tokens": 1, "extra_body": extra})
        written = self._states.begin(key)
        try:
            if self._act(slot, "save", written):
                self._states.keep(key, written)
        except OSError:  # a full disk: read again next time
            self._states.drop(written)

    def _restored(self, slot: int, key: str) -> bool:
        name = self._states.find(key)
        if name is None:
            return False
        if self._act(slot, "restore", name):
            return True
        self._states.drop(name)
        return False

    def _act(self, slot: int, action: str, file: str) -> bool:
        """Save or restore what a slot holds; whether that went well. It takes a few hundredths of a
        second: too short to be broken off."""
        import httpx

        try:
            reply = httpx.post(
                f"{self._address}/slots/{slot}",
                params={"action": action},
                json={"filename": file},
                headers={"Authorization": f"Bearer {self.api_key}"},
                timeout=_SLOT_SECONDS,
                trust_env=False,
            )
        except httpx.TransportError:  # a machine with too much to do: read anew what is kept
            return False
        return reply.is_success


def _beginning(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """What prompts of this kind have in common."""
    return [*messages[:-1], {"role": "user", "content": _NOTHING}]


def _key(messages: Sequence[Mapping[str, str]]) -> str:
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:24]


def _states(folder: Path | None, model: Path, context: int) -> States:
    """The states of a model in `folder`; where that cannot be written to, in one that is gone when
    the process ends."""
    import xllamacpp

    status = model.stat()
    made = [model.name, status.st_size, status.st_mtime_ns, context, xllamacpp.__version__]
    name = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]
    if folder:
        with suppress(OSError):
            return States(folder / f"{model.stem}-{name}")
    return States(Path(_temporary().name))


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ragbot-", ignore_cleanup_errors=True)


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
    import openai  # noqa: F401  # the first question needs it, and here it takes no time of its own

    while loader.is_alive():
        loader.join(_POLL_SECONDS)
    if isinstance(outcome[0], RuntimeError):
        raise outcome[0]
    return outcome[0]


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
        repeated = repeated_token(path) if magic == _GGUF_MAGIC else None
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if magic != _GGUF_MAGIC:
        raise ModelError(f"The model file {path} is not a GGUF file: name one with --llm.")
    if repeated:
        raise ModelError(
            f"The model file {path} is damaged: its vocabulary has {repeated!r} twice; replace it "
            "by a whole copy."
        )
