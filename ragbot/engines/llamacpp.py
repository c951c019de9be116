"""llama.cpp inside this process, for GGUF files.

xllamacpp's server listens on a loopback port of its own choosing, under a key that only this
object knows, and is spoken to as any other OpenAI-compatible server is. Its direct calls are not
used: they cannot be cancelled while the prompt is being read, the connection can.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ragbot.engines.http import HttpEngine
from ragbot.errors import ModelError

# A closed connection is noticed between two batches. Measured on two cores (1.5B, Q4_K_M): batches
# of 2048 / 256 / 128 free the model 17 / 1.6 / 1.7 s after the reader leaves, and read the prompt
# at 86 / 86 / 84 tokens a second.
_BATCH = 128
_GGUF_MAGIC = b"GGUF"


class LlamaCppEngine(HttpEngine):
    """The GGUF file at `path`. Raises ModelError when it cannot be loaded."""

    def __init__(self, path: Path, *, context: int, threads: int):
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
            self._server = xllamacpp.Server(params)  # kept: it stops when it is collected
        except RuntimeError as error:
            raise ModelError(
                f"llama.cpp cannot load {path} ({error}): it needs a complete GGUF chat model."
            ) from error
        super().__init__(path.stem, f"{self._server.listening_address}/v1", key, proxied=False)


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if magic != _GGUF_MAGIC:
        raise ModelError(f"The model file {path} is not a GGUF file: name one with --llm.")
