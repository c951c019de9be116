"""From settings to ready parts: models resolved, the index brought up to date, the engine opened.

This is the only place that knows where an index belongs and when it is out of date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ragbot.chunking import chunk
from ragbot.config import Config
from ragbot.corpus import Corpus, corpus_files, load_corpus, missing
from ragbot.encoder import Encoder, open_encoder
from ragbot.engines import Engine, connect_engine, open_engine, server_addresses
from ragbot.errors import CorpusError
from ragbot.index import Index, build_index, open_index, outdated
from ragbot.models import fingerprint, resolve_encoder, resolve_generator, resolve_reranker
from ragbot.reranker import open_reranker
from ragbot.store import MANIFEST, replace_file
from ragbot.types import Chunk, Progress, Rerank

Report = Callable[[str], Progress]
"""Given the name of a piece of long work, gives what to call with (done, total)."""

_SOURCE = "source.json"
_FOR_EACH_SERVER = 4  # questions: a server reads for one while it writes for others
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


def index_folder(config: Config, encoder: Encoder) -> Path:
    """Where the index lies: the folder named, or one of the cache for a corpus named without one.

    That cache folder is named after the corpus's path, the encoder and `keep_all`, so that asking
    over one file never disturbs the index of another.
    """
    if "index" in config.model_fields_set or "corpus" not in config.model_fields_set:
        return config.index
    key = [str(config.corpus.resolve()), encoder.fingerprint, config.keep_all]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return config.cache / "indexes" / f"{config.corpus.stem}-{name}"


def current_index(config: Config, encoder: Encoder, report: Report = silent) -> Index:
    """The index to answer from: built when there is none, renewed when its corpus has changed.

    So is what an older ragbot built. An index whose corpus is gone is served as it is. Raises
    CorpusError, StoreError.
    """
    folder = index_folder(config, encoder)
    source = config.corpus
    if (folder / MANIFEST).exists():
        made = _read_source(folder)
        if made and "corpus" not in config.model_fields_set:
            source = Path(made["corpus"])
        if not source.exists() or not outdated(folder, encoder):
            index = open_index(folder, encoder.fingerprint)
            if not source.exists() or made == _source(source, config.keep_all):
                return index
    return renewed_index(config, source, encoder, report)[0]


def renewed_index(
    config: Config, source: Path, encoder: Encoder, report: Report = silent
) -> tuple[Index, Corpus]:
    """Read the corpus and index it, encoding only what is new. Raises CorpusError, StoreError."""
    made = _source(source, config.keep_all)
    corpus = load_corpus(source, keep_all=config.keep_all)
    folder = index_folder(config, encoder)
    index = build_index(
        folder, corpus.documents, _chunks(corpus, encoder), encoder, report("Encoding passages")
    )
    replace_file(folder / _SOURCE, json.dumps(made))
    return index, corpus


def _chunks(corpus: Corpus, encoder: Encoder) -> Sequence[Chunk]:
    limit = encoder.max_tokens - SPECIAL_TOKENS
    return [
        piece
        for document in corpus.documents
        for piece in chunk(document, limit=limit, count=encoder.count_tokens)
    ]


# Where an index came from. A corpus is read again only when a file's name, size or time changed.


def _source(source: Path, keep_all: bool) -> dict[str, str]:
    files = [
        (name, path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in (corpus_files(source) if source.exists() else ())
    ]
    stamp = hashlib.sha256(json.dumps([files, keep_all]).encode()).hexdigest()
    return {"corpus": str(source.resolve()), "files": stamp}


def _read_source(folder: Path) -> dict[str, str] | None:
    try:
        fields: dict[str, str] = json.loads((folder / _SOURCE).read_text(encoding="utf-8"))
        return {"corpus": fields["corpus"], "files": fields["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # made by hand or by an older version: it is then read again
