"""Generators: one narrow interface, three ways to run one. Only this file knows all three."""

from __future__ import annotations

from pathlib import Path

from ragbot.engines.base import Engine, TextStream
from ragbot.errors import ConfigError

__all__ = ["Engine", "TextStream", "connect_engine", "open_engine"]


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


def connect_engine(model: str, base_url: str, api_key: str) -> Engine:
    """The model of an OpenAI-compatible server; nothing is loaded and nothing sent yet."""
    from ragbot.engines.http import HttpEngine

    return HttpEngine(model, base_url, api_key)
