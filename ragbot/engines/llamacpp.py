"""llama.cpp inside this process, for GGUF files.

xllamacpp's server listens on a loopback port of its own choosing, under a key that only this
object knows, and is spoken to as any other OpenAI-compatible server is. Its direct calls are not
used: they cannot be cancelled while the prompt is being read, the connection can.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Any

from ragbot.engines.http import HttpEngine
from ragbot.errors import ModelError

# A closed connection is noticed between two batches. Measured on two cores (1.5B, Q4_K_M): batches
# of 2048 / 256 / 128 free the model 17 / 1.6 / 1.7 s after the reader leaves, and read the prompt
# at 86 / 86 / 84 tokens a second.
_BATCH = 128
_GGUF_MAGIC = b"GGUF"
_POLL_SECONDS = 0.1


class LlamaCppEngine(HttpEngine):
    """The GGUF file at `path`. Raises ModelError when it cannot be loaded.

    With `prompt_cache`, what a prompt has in common with the last one is not read again. It is then
    read in other batches, which round otherwise, and a near tie between two words may turn: of 14
    questions asked in two orders, 3 were answered in other words. Without it the same messages give
    the same text, whatever was asked before.
    """

    def __init__(self, path: Path, *, context: int, threads: int, prompt_cache: bool = True):
        import xllamacpp

        _check(path)
        key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context
        params.n_batch = params.n_ubatch = _BATCH
        params.n_parallel = 1
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
        self._extra = {"cache_prompt": prompt_cache}


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
