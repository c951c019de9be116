"""The index: vectors, BM25, chunks and documents, and what encoder and corpus they come from.

How its files are kept whole is the store's business; how scores are joined, the retriever's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot import store
from ragbot.dense import Dense
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.lexical import Lexical
from ragbot.text import detect_language, sentences
from ragbot.types import Chunk, Document, Language, LeftOut, Paragraph, Progress

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

FORMAT = 1
_LOCK = "writer.lock"
_SAMPLE = 1000  # chunks that tell what languages there are
_GOOD_PART = 0.1  # of a document: one chunk of English names makes none English


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index is: enough to refuse it, and to say why."""

    format: int
    encoder: str
    encoder_fingerprint: str
    dimension: int
    corpus_fingerprint: str
    documents: int
    chunks: int
    vectors: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk with its scores for one query.

    `passage` and `sentence` are cosines, of the whole chunk and of its best sentence; `lexical` is
    the share of the query's words, by weight, that the chunk holds.
    """

    id: int
    passage: float
    sentence: float
    lexical: float


class Index:
    """An opened index: the chunks, the documents they come from, and two ways to find them."""

    def __init__(
        self,
        manifest: Manifest,
        documents: Sequence[Document],
        chunks: Sequence[Chunk],
        dense: Dense,
        lexical: Lexical,
    ):
        self.manifest = manifest
        self.documents = {document.name: document for document in documents}
        self.chunks = tuple(chunks)
        self.dense = dense
        self._ids = {chunk: id for id, chunk in enumerate(self.chunks)}
        self._lexical = lexical

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        """Candidates for a query of which `vector` (d,) is the encoding, in order of their ids.

        They are the best by each of the three scores, `limit` or more of them when there are as
        many chunks; each carries all three scores, whichever of them brought it in.
        """
        import numpy as np

        lexical = self._lexical.scores(query)
        best = np.argsort(-lexical, kind="stable")[:limit]
        found = self.dense.nearest(vector, limit) | {int(id) for id in best if lexical[id] > 0}
        return [
            Candidate(id, *self.dense.cosines(id, vector), float(lexical[id]))
            for id in sorted(found)
        ]

    @cached_property
    def languages(self) -> frozenset[Language]:
        """The languages that a document is in, wholly or for a good part, as a sample shows them;
        Chinese in one of its scripts."""
        sample = self.chunks[:: max(1, len(self.chunks) // _SAMPLE)]
        found = Counter((chunk.doc, detect_language(chunk.text)) for chunk in sample)
        size = Counter(chunk.doc for chunk in sample)
        spoken = {lang for (doc, lang), n in found.items() if n >= _GOOD_PART * size[doc]}
        return frozenset(spoken - {"zh-Hant"} if "zh-Hans" in spoken else spoken)

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        """A chunk with up to `most` before and behind it, in order, whatever their documents."""
        at = self._ids[chunk]
        return self.chunks[max(0, at - most) : at + most + 1]

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        """The vectors of a chunk's sentences, in order: (m, d) float32, unit length."""
        rows = self.dense.rows(self._ids[chunk])
        return rows[1:] if len(rows) > 1 else rows


# --- building --------------------------------------------------------------------------------


def build_index(
    folder: Path,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    encoder: Encoder,
    progress: Progress | None = None,
) -> Index:
    """Write the index of `chunks` to `folder`, reusing the vectors of unchanged text.

    Raises StoreError when the folder cannot be written. Killed at any moment, it leaves the old
    index as it was; a second writer waits for the first.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            dense = _dense(folder, chunks, encoder, progress)
            lexical = Lexical.build([chunk.passage for chunk in chunks])
            manifest = Manifest(
                format=FORMAT,
                encoder=encoder.name,
                encoder_fingerprint=encoder.fingerprint,
                dimension=encoder.dimension,
                corpus_fingerprint=_fingerprint(documents),
                documents=len(documents),
                chunks=len(chunks),
                vectors=dense.count,
            )

            def write(target: Path) -> None:
                dense.save(target)
                lexical.save(target / "bm25")
                _write_records(target / "chunks.jsonl", chunks)
                _write_records(target / "documents.jsonl", documents)

            store.publish(folder, write, asdict(manifest))
            return Index(manifest, documents, chunks, dense, lexical)
    except OSError as error:
        raise StoreError(
            f"The index cannot be written to {folder} ({error.strerror or error}): free some space "
            "or name another folder with --index."
        ) from error


def _dense(
    folder: Path, chunks: Sequence[Chunk], encoder: Encoder, progress: Progress | None
) -> Dense:
    import numpy as np

    rows = [_rows(chunk) for chunk in chunks]
    texts = [text for row in rows for text in row]
    known = _known_vectors(folder, encoder)
    fresh = [text for text in dict.fromkeys(texts) if text not in known]
    known.update(zip(fresh, encoder.passages(fresh, progress=progress), strict=True))
    starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return Dense.build(np.stack([known[text] for text in texts]), starts)


def _known_vectors(folder: Path, encoder: Encoder) -> dict[str, NDArray[float32]]:
    try:
        old = open_index(folder, encoder.fingerprint)
    except StoreError:
        return {}  # nothing there that could be reused; a damaged index is simply built anew
    texts = [text for chunk in old.chunks for text in _rows(chunk)]
    rows = old.dense.all_rows()
    # Another version may have split sentences otherwise; its rows are then not ours to match.
    return dict(zip(texts, rows, strict=True)) if len(texts) == len(rows) else {}


def _rows(chunk: Chunk) -> list[str]:
    """The texts that stand for a chunk: itself, and its sentences when it has more than one."""
    spans = sentences(chunk.text)
    parts = [chunk.text[start:end] for start, end in spans] if len(spans) > 1 else []
    return [chunk.passage, *parts]


def _fingerprint(documents: Sequence[Document]) -> str:
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda d: d.name):
        digest.update(json.dumps([document.name, document.title, document.text]).encode())
    return digest.hexdigest()


# --- opening ---------------------------------------------------------------------------------


def open_index(folder: Path, encoder_fingerprint: str) -> Index:
    """Open the index in `folder`, made by the encoder of that fingerprint.

    Raises StoreError: there is none, it is damaged, of a newer format, or another encoder's.
    """
    kept = store.read_manifest(folder)
    manifest = _manifest(folder, kept)
    if manifest.encoder_fingerprint != encoder_fingerprint:
        raise StoreError(
            f"The index in {folder} was made by another encoder ({manifest.encoder}): {store.MEND}."
        )
    try:
        return _load(store.verified(folder, kept), manifest)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if store.read_manifest(folder) != kept:  # a writer replaced it while we were reading
            return open_index(folder, encoder_fingerprint)
        raise StoreError(f"The index in {folder} is damaged ({error}): {store.MEND}.") from error


def read_manifest(folder: Path) -> Manifest:
    """What the index in `folder` is, without opening it. Raises StoreError."""
    return _manifest(folder, store.read_manifest(folder))


def _manifest(folder: Path, kept: dict[str, Any]) -> Manifest:
    if kept.get("format") != FORMAT:
        raise StoreError(
            f"The index in {folder} is of format {kept.get('format')}, this ragbot reads {FORMAT}: "
            f"update ragbot, or {store.MEND}."
        )
    try:
        return Manifest(**{field.name: kept[field.name] for field in fields(Manifest)})
    except KeyError as error:
        raise StoreError(f"The manifest in {folder} lacks {error}: {store.MEND}.") from error


def _load(folder: Path, manifest: Manifest) -> Index:
    chunks = [_chunk(record) for record in _read_records(folder / "chunks.jsonl")]
    documents = [_document(record) for record in _read_records(folder / "documents.jsonl")]
    lexical = Lexical.load(folder / "bm25", len(chunks))
    return Index(manifest, documents, chunks, Dense.load(folder), lexical)


def _write_records(path: Path, records: Sequence[Chunk] | Sequence[Document]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _chunk(record: dict[str, Any]) -> Chunk:
    return Chunk(**record | {"headings": tuple(record["headings"])})


def _document(record: dict[str, Any]) -> Document:
    paragraphs = (Paragraph(**row) for row in record["paragraphs"])
    return Document(
        name=record["name"],
        title=record["title"],
        text=record["text"],
        paragraphs=tuple(replace(row, headings=tuple(row.headings)) for row in paragraphs),
        left_out=tuple(LeftOut(**piece) for piece in record["left_out"]),
    )
