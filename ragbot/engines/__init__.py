"""Generators: one narrow interface, three ways to run one. Only this file knows all three."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ragbot.engines.base import Engine, TextStream
from ragbot.errors import ConfigError

__all__ = ["Engine", "TextStream", "connect_engine", "open_engine", "server_addresses"]


def open_engine(
    engine: str, model: str, *, context: int, threads: int, folder: Path | None = None
) -> Engine:
    """Load `model` (a resolved file, folder or hub id) with `llamacpp` or `transformers`.

    `auto` takes llama.cpp for a GGUF file and transformers for the rest. `folder` is where
    llama.cpp keeps what it has read; without one it is forgotten at the end of the process. Raises
    ModelError, ConfigError.
    """
    gguf = model.lower().endswith(".gguf")
    if engine == "auto":
        engine = "llamacpp" if gguf else "transformers"
    if engine == "llamacpp":
        if not gguf:
            raise ConfigError(f"llama.cpp runs GGUF files, not {model!r}: name one with --llm.")
        from ragbot.engines.llamacpp import LlamaCppEngine

        return LlamaCppEngine(Path(model), context=context, threads=threads, folder=folder)
    if engine == "transformers":
        from ragbot.engines.hf import HfEngine

        return HfEngine(model, threads=threads)
    raise ConfigError(f"Unknown engine {engine!r}: use llamacpp, transformers or openai.")


def connect_engine(model: str, base_url: str, api_key: str, *, timeout: float = 0.0) -> Engine:
    """The model of an OpenAI-compatible server, or of several whose addresses stand between commas;
    nothing is loaded and nothing sent yet.

    `timeout` bounds the seconds to a server's first word; 0 leaves it to the engine.
    """
    from ragbot.engines.http import HttpEngine, Limits
    from ragbot.engines.servers import LIMITS, Servers

    addresses = server_addresses(base_url)
    limits = LIMITS if len(addresses) > 1 else Limits()
    if timeout:
        limits = replace(limits, first=timeout)
    engines = [HttpEngine(model, address, api_key, limits=limits) for address in addresses]
    return Servers(engines) if len(engines) > 1 else engines[0]


def server_addresses(base_url: str) -> list[str]:
    """The addresses of a setting, each once. Raises ConfigError when there is none."""
    addresses = [part.strip().rstrip("/") for part in base_url.split(",")]
    addresses = list(dict.fromkeys(filter(None, addresses)))
    for address in addresses or [base_url]:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"{address!r} is no address of a server: set RAGBOT_BASE_URL to one such as "
                "http://localhost:8000/v1, several with commas between them."
            )
    return addresses
