"""From settings to ready parts: models resolved, the index brought up to date, the engine opened.

This is the only place that knows where an index belongs and when it is out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from ragbot import oneoffs
from ragbot.address import Milvus
from ragbot.chunking import chunk
from ragbot.cluster import Cluster, SpreadEncoder
from ragbot.config import Config
from ragbot.corpus import (
    Corpus,
    corpus_files,
    corpus_of,
    files_to_read,
    load_corpus,
    missing,
    read_or_skip,
)
from ragbot.encoder import Encoder, open_encoder
from ragbot.engines import Engine, connect_engine, open_engine, server_addresses
from ragbot.errors import CorpusError, ModelError
from ragbot.index import Index
from ragbot.models import fingerprint, resolve_encoder, resolve_generator, resolve_reranker
from ragbot.naming import named
from ragbot.reranker import open_reranker
from ragbot.stores import FaissStore, IndexStore, MilvusStore
from ragbot.types import Chunk, Document, LeftOut, Progress, Rerank

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

Report = Callable[[str], Progress]
"""Given the name of a piece of long work, gives what to call with (done, total)."""

_FOR_EACH_SERVER = 4  # questions: a server reads for one while it writes for others
SPECIAL_TOKENS = 8  # what an encoder's prompt and its marks of beginning and end take, at most


def silent(label: str) -> Progress:
    """A Report that shows nothing."""
    return lambda done, total: None


def require_corpus(config: Config) -> None:
    """Raise CorpusError for a corpus that is named and not there: before any model is touched."""
    if "corpus" in config.model_fields_set and not config.corpus.exists():
        raise CorpusError(missing(config.corpus))


def require_documents(config: Config, documents: Sequence[str]) -> None:
    """Raise ConfigError for what means no file of a corpus that is named, before it is indexed and
    any model loaded. That a file is none to be read shows later."""
    if documents and "corpus" in config.model_fields_set and config.corpus.exists():
        named(documents, [name for name, _ in corpus_files(config.corpus)])


def default_encoder(config: Config, report: Report = silent) -> Encoder:
    """The encoder that the settings name. Raises ModelError."""
    progress = report("Preparing the encoder")
    return _named_encoder(config.encoder, config.cache, config.threads, progress)


def _named_encoder(name: str, cache: Path, threads: int, progress: Progress | None) -> Encoder:
    model = resolve_encoder(name, cache, progress)
    return open_encoder(model, name=name, fingerprint=fingerprint(model), threads=threads)


def default_reranker(config: Config) -> Rerank | None:
    """The reranker that the settings name, loaded; None when they name none. Raises ModelError."""
    if not config.reranker:
        return None
    return open_reranker(resolve_reranker(config.reranker), threads=config.threads)


def default_engine(config: Config, report: Report = silent) -> Engine:
    """The generator that the settings name, loaded. Raises ModelError, ConfigError."""
    if is_served(config):
        return connect_engine(
            config.llm, config.base_url, config.llm_api_key, timeout=config.llm_timeout
        )
    model = resolve_generator(config.llm, config.cache, report("Preparing the generator"))
    return open_engine(
        config.engine,
        model,
        context=config.context,
        threads=config.threads,
        folder=config.cache / "states",
    )


def is_served(config: Config) -> bool:
    """Whether the generator is a server's, not one in this process."""
    return config.engine == "openai" or (config.engine == "auto" and bool(config.base_url))


def questions_at_once(config: Config) -> int:
    """How many questions may be at work: one where the cores do all of it. Raises ConfigError."""
    served = len(server_addresses(config.base_url)) if is_served(config) else 0
    return config.parallel or max(1, _FOR_EACH_SERVER * served)


def index_store(config: Config, encoder: Encoder) -> IndexStore:
    """Where the index lies: the place named, or a cache folder for a corpus named without one.

    That cache folder is named after the corpus's path, the encoder and `keep_all`, so that asking
    over one file never disturbs the index of another.
    """
    if "index" in config.model_fields_set or "corpus" not in config.model_fields_set:
        return named_store(config)
    key = [str(config.corpus.resolve()), encoder.fingerprint, config.keep_all]
    return FaissStore(_one_offs(config) / f"{config.corpus.stem}-{_hash(key)}")


def _one_offs(config: Config) -> Path:
    return config.cache / "indexes"


def _is_one_off(config: Config, store: IndexStore) -> bool:
    return store.folder.parent == _one_offs(config)


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
    if _is_one_off(config, store):
        oneoffs.note_use(store.folder)
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
    config: Config,
    source: Path,
    encoder: Encoder,
    report: Report = silent,
    cluster: Cluster | None = None,
) -> tuple[Index, Corpus]:
    """Read the corpus and index it, encoding only what is new. Raises CorpusError, StoreError.

    A cluster's workers, if one is given, read, cut and encode; the index is the same.
    """
    made = _source(source, config.keep_all)
    if cluster:
        alike = partial(_worker_encoder, config.encoder, config.cache, encoder.fingerprint)
        read = partial(_reader, alike, source, config.keep_all)
        corpus, chunks = _read_by(cluster, read, source, report("Reading documents"))
        encoder = SpreadEncoder(encoder, cluster, partial(_passages, alike))
    else:
        corpus = load_corpus(source, keep_all=config.keep_all)
        chunks = [piece for one in corpus.documents for piece in _chunks(one, encoder)]
    store = index_store(config, encoder)
    index = store.build(corpus.documents, chunks, encoder, report("Encoding passages"))
    store.note_source(made)
    if _is_one_off(config, store):
        oneoffs.clear(store.folder.parent)
    return index, corpus


def _chunks(document: Document, encoder: Encoder) -> list[Chunk]:
    limit = encoder.max_tokens - SPECIAL_TOKENS
    return chunk(document, limit=limit, count=encoder.count_tokens)


# What a cluster's workers do. Each opens the encoder for itself, on the one core that it has.

_Read = tuple[Document | LeftOut, list[Chunk]]


def _read_by(
    cluster: Cluster,
    make: Callable[[], Callable[[tuple[str, Path]], _Read]],
    source: Path,
    progress: Progress,
) -> tuple[Corpus, list[Chunk]]:
    files = files_to_read(source)
    read: dict[int, _Read] = {}
    for number, one in cluster.map(make, files):
        read[number] = one
        progress(len(read), len(files))
    in_order = [read[number] for number in range(len(files))]
    chunks = [piece for _, pieces in in_order for piece in pieces]
    return corpus_of(source, (one for one, _ in in_order)), chunks


def _reader(
    open_alike: Callable[[], Encoder], source: Path, keep_all: bool
) -> Callable[[tuple[str, Path]], _Read]:
    encoder = open_alike()
    if not source.exists():
        raise CorpusError(
            f"The worker on {gethostname()} sees no {source}: put the corpus where all machines of "
            "the cluster see it under that path."
        )

    def read(file: tuple[str, Path]) -> _Read:
        name, path = file
        one = read_or_skip(path, name, keep_all=keep_all)
        return one, _chunks(one, encoder) if isinstance(one, Document) else []

    return read


def _passages(open_alike: Callable[[], Encoder]) -> Callable[[Sequence[str]], NDArray[float32]]:
    return open_alike().passages


def _worker_encoder(name: str, cache: Path, expected: str) -> Encoder:
    """The encoder of that name in a worker. Raises ModelError: it is another one there."""
    encoder = _named_encoder(name, cache, 1, None)
    if encoder.fingerprint != expected:
        raise ModelError(
            f"On {gethostname()} the encoder {name!r} is another one than here: install the same "
            "models and ragbot on all machines of the cluster."
        )
    return encoder


# A corpus is read again only when a file's name, size or time changed.


def _source(source: Path, keep_all: bool) -> dict[str, str]:
    files = [
        (name, path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in (corpus_files(source) if source.exists() else ())
    ]
    stamp = hashlib.sha256(json.dumps([files, keep_all]).encode()).hexdigest()
    return {"corpus": str(source.resolve()), "files": stamp}
