"""The index: vectors, BM25, chunks and documents, and what encoder and corpus they come from.

How its files are kept whole is the store's business; how scores are joined, the retriever's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot import store
from ragbot.dense import WIDTH, Dense
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.lexical import Lexical
from ragbot.records import Chunks, Documents, write_chunks, write_documents
from ragbot.text import detect_language, sentences
from ragbot.types import Chunk, Document, Language, Progress
from ragbot.vectors import Vectors, encode, joined, key

if TYPE_CHECKING:
    from numpy import float32, int64, uint8, uint16
    from numpy.typing import NDArray

FORMAT = 2
_LOCK, _JOURNAL = "writer.lock", "encoding.part"
_SAMPLE = 1000  # chunks that tell what languages there are
_GOOD_PART = 0.1  # of a document: one chunk of English names makes none English
_BLOCK = 1 << 14  # rows that are copied at once


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
    exact: bool


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

    def __init__(self, manifest: Manifest, folder: Path):
        """Open the files in `folder`. Raises OSError, ValueError, RuntimeError: not whole."""
        import numpy as np

        self.manifest = manifest
        self.documents: Mapping[str, Document] = Documents(folder)
        self.chunks: Sequence[Chunk] = Chunks(folder)
        self.dense = Dense.load(folder)
        self._lexical = Lexical.load(folder / "bm25", len(self.chunks))
        self._keys = np.load(folder / "keys.npy", mmap_mode="r", allow_pickle=False)

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        """Candidates for a query of which `vector` (d,) is the encoding, in order of their ids.

        They are the best by both cosines, twice `limit`, and the best `limit` by their words, when
        there are as many chunks; each carries all three scores, whichever of them brought it in.
        """
        import numpy as np

        places, shares = self._lexical.best(query, limit)
        ids = np.union1d(self.dense.nearest(vector, limit * WIDTH), places)
        passage, sentence = self.dense.cosines(ids, vector)
        chosen = np.isin(ids, places)
        chosen[np.argsort(-(passage + sentence), kind="stable")[: 2 * limit]] = True
        rows = np.stack([passage, sentence, shares[ids]], axis=1)[chosen].tolist()
        return [
            Candidate(id, *scores) for id, scores in zip(ids[chosen].tolist(), rows, strict=True)
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
        at = self._id(chunk)
        return self.chunks[max(0, at - most) : at + most + 1]

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        """The vectors of a chunk's sentences, in order: (m, d) float32, unit length."""
        rows = self.dense.rows_of(self._id(chunk))
        return rows[1:] if len(rows) > 1 else rows

    def _id(self, chunk: Chunk) -> int:
        """The number of a chunk of this index, found by its key. Raises KeyError."""
        import numpy as np

        alike = np.flatnonzero((self._own_keys == joined([key(chunk.passage)]).view("<u8")).all(1))
        for number in map(int, alike):
            if self.chunks[number] == chunk:
                return number
        raise KeyError(chunk)

    @property
    def rows(self) -> tuple[NDArray[uint8], NDArray[uint16]]:
        """Every vector with the key of its text, for the index that comes after this one."""
        return self._keys, self.dense.rows

    @cached_property
    def _own_keys(self) -> NDArray[Any]:
        keys: NDArray[Any] = self._keys[self.dense.starts[:-1]].view("<u8")
        return keys


# --- building --------------------------------------------------------------------------------


def build_index(
    folder: Path,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    encoder: Encoder,
    progress: Progress | None = None,
) -> Index:
    """Write the index of `chunks` to `folder`, reusing the vectors of unchanged text.

    `progress` counts bytes of text. Raises StoreError when the folder cannot be written. Killed at
    any moment, it leaves the old index as it was, and what was encoded to the next run; a second
    writer waits for the first.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            old = _old_vectors(folder, encoder)
            vectors = Vectors(folder / _JOURNAL, encoder.fingerprint, encoder.dimension, old)
            keys, starts = _encoded(vectors, chunks, encoder, progress)
            manifest = Manifest(
                format=FORMAT,
                encoder=encoder.name,
                encoder_fingerprint=encoder.fingerprint,
                dimension=encoder.dimension,
                corpus_fingerprint=_fingerprint(documents),
                documents=len(documents),
                chunks=len(chunks),
                vectors=len(keys),
                exact=Dense.exact(len(chunks)),
            )

            def write(target: Path) -> None:
                rows = _write_rows(target, vectors, keys)
                Dense.build(rows, starts).save(target)
                Lexical.build([chunk.passage for chunk in chunks]).save(target / "bm25")
                write_chunks(target, chunks)
                write_documents(target, documents)

            store.publish(folder, write, asdict(manifest))
            vectors.discard()
            return Index(manifest, folder / store.read_manifest(folder)["generation"])
    except OSError as error:
        raise StoreError(
            f"The index cannot be written to {folder} ({error.strerror or error}): free some space "
            "or name another folder with --index."
        ) from error


def _encoded(
    vectors: Vectors, chunks: Sequence[Chunk], encoder: Encoder, progress: Progress | None
) -> tuple[list[bytes], NDArray[int64]]:
    """The keys of all rows, and where each chunk's begin; the vectors then hold every one."""
    import numpy as np

    keys: list[bytes] = []
    starts = [0]
    fresh: dict[bytes, str] = {}
    for chunk in chunks:
        for text in _rows(chunk):
            keys.append(key(text))
            if keys[-1] not in vectors:
                fresh[keys[-1]] = text
        starts.append(len(keys))
    encode(vectors, fresh, encoder.passages, progress)
    return keys, np.array(starts, dtype=np.int64)


def _write_rows(target: Path, vectors: Vectors, keys: Sequence[bytes]) -> NDArray[uint16]:
    import numpy as np

    np.save(target / "keys.npy", joined(keys))
    path = target / "rows.npy"
    # Not through a map: a disk that is full would end the process by a signal.
    with path.open("wb") as file:
        shape = (len(keys), vectors.width)
        header = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(keys), _BLOCK):
            file.write(vectors.rows(keys[first : first + _BLOCK]).tobytes())
    rows: NDArray[uint16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows


def _old_vectors(folder: Path, encoder: Encoder) -> tuple[NDArray[uint8], NDArray[uint16]] | None:
    """Keys and rows of the index that is there; none when it is damaged, or another encoder's."""
    try:
        return open_index(folder, encoder.fingerprint).rows
    except StoreError:
        return None


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
        return Index(manifest, store.verified(folder, kept))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if store.read_manifest(folder) != kept:  # a writer replaced it while we were reading
            return open_index(folder, encoder_fingerprint)
        raise StoreError(f"The index in {folder} is damaged ({error}): {store.MEND}.") from error


def outdated(folder: Path, encoder: Encoder) -> bool:
    """Whether an older ragbot made the index in `folder`, by the encoder that still has the name.

    Raises StoreError when nothing can be told of it.
    """
    kept = store.read_manifest(folder)
    made, older = kept.get("format"), kept.get("encoder_fingerprint") != encoder.fingerprint
    return kept.get("encoder") == encoder.name and (
        older or (isinstance(made, int) and made < FORMAT)
    )


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
