"""From settings to ready parts: models resolved, the index brought up to date, the engine opened.

This is the only place that knows where an index belongs and when it is out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ragbot.address import Milvus
from ragbot.chunking import chunk
from ragbot.config import Config
from ragbot.corpus import Corpus, corpus_files, load_corpus, missing
from ragbot.encoder import Encoder, open_encoder
from ragbot.engines import Engine, connect_engine, open_engine
from ragbot.errors import CorpusError
from ragbot.index import Index
from ragbot.models import fingerprint, resolve_encoder, resolve_generator, resolve_reranker
from ragbot.reranker import open_reranker
from ragbot.stores import FaissStore, IndexStore, MilvusStore
from ragbot.types import Chunk, Progress, Rerank

Report = Callable[[str], Progress]
"""Given the name of a piece of long work, gives what to call with (done, total)."""

SPECIAL_TOKENS = 8  # what an encoder's prompt and its marks of beginning and end take, at most


def silent(label: str) -> Progress:
    """A Report that shows nothing."""
    return lambda done, total: None


def require_corpus(config: Config) -> None:
    """Raise CorpusError for a corpus that is named and not there: before any model is touched."""
    if "corpus" in config.model_fields_set and not config.corpus.exists():
        raise CorpusError(missing(config.corpus))


def default_encoder(config: Config, report: Report = silent) -> Encoder:
    """The encoder that the settings name. Raises ModelError."""
    model = resolve_encoder(config.encoder, config.cache, report("Preparing the encoder"))
    return open_encoder(
        model, name=config.encoder, fingerprint=fingerprint(model), threads=config.threads
    )


def default_reranker(config: Config) -> Rerank | None:
    """The reranker that the settings name, loaded; None when they name none. Raises ModelError."""
    if not config.reranker:
        return None
    return open_reranker(resolve_reranker(config.reranker), threads=config.threads)


def default_engine(config: Config, report: Report = silent) -> Engine:
    """The generator that the settings name, loaded. Raises ModelError, ConfigError."""
    if config.engine == "openai" or (config.engine == "auto" and config.base_url):
        return connect_engine(config.llm, config.base_url, config.llm_api_key)
    model = resolve_generator(config.llm, config.cache, report("Preparing the generator"))
    return open_engine(
        config.engine,
        model,
        context=config.context,
        threads=config.threads,
        folder=config.cache / "states",
    )


def index_store(config: Config, encoder: Encoder) -> IndexStore:
    """Where the index lies: the place named, or a cache folder for a corpus named without one.

    That cache folder is named after the corpus's path, the encoder and `keep_all`, so that asking
    over one file never disturbs the index of another.
    """
    if "index" in config.model_fields_set or "corpus" not in config.model_fields_set:
        return named_store(config)
    key = [str(config.corpus.resolve()), encoder.fingerprint, config.keep_all]
    return FaissStore(config.cache / "indexes" / f"{config.corpus.stem}-{_hash(key)}")


def named_store(config: Config) -> IndexStore:
    """The place that the settings name for an index."""
    if isinstance(config.index, Milvus):
        place = str(config.index)
        return MilvusStore(config.index, config.cache / "milvus" / _hash([place]))
    return FaissStore(config.index)


def _hash(key: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def current_index(config: Config, encoder: Encoder, report: Report = silent) -> Index:
    """The index to answer from: built when there is none, renewed when its corpus has changed.

    So is what an older ragbot built. An index whose corpus is gone is served as it is. Raises
    CorpusError, StoreError.
    """
    store = index_store(config, encoder)
    source = config.corpus
    if store.exists():
        made = store.source()
        if made and "corpus" not in config.model_fields_set:
            source = Path(made["corpus"])
        if not source.exists() or not store.outdated(encoder):
            index = store.open(encoder)
            if not source.exists() or made == _source(source, config.keep_all):
                return index
    return renewed_index(config, source, encoder, report)[0]


def renewed_index(
    config: Config, source: Path, encoder: Encoder, report: Report = silent
) -> tuple[Index, Corpus]:
    """Read the corpus and index it, encoding only what is new. Raises CorpusError, StoreError."""
    made = _source(source, config.keep_all)
    corpus = load_corpus(source, keep_all=config.keep_all)
    store = index_store(config, encoder)
    index = store.build(
        corpus.documents, _chunks(corpus, encoder), encoder, report("Encoding passages")
    )
    store.note_source(made)
    return index, corpus


def _chunks(corpus: Corpus, encoder: Encoder) -> Sequence[Chunk]:
    limit = encoder.max_tokens - SPECIAL_TOKENS
    return [
        piece
        for document in corpus.documents
        for piece in chunk(document, limit=limit, count=encoder.count_tokens)
    ]


# A corpus is read again only when a file's name, size or time changed.


def _source(source: Path, keep_all: bool) -> dict[str, str]:
    files = [
        (name, path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in (corpus_files(source) if source.exists() else ())
    ]
    stamp = hashlib.sha256(json.dumps([files, keep_all]).encode()).hexdigest()
    return {"corpus": str(source.resolve()), "files": stamp}
