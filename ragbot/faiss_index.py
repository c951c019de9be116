"""The index in a folder, searched in this process: FAISS for vectors, bm25s for words.

How its files are kept whole is the store's business; how scores are joined, the retriever's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot import store
from ragbot.dense import WIDTH, Dense
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.index import Candidate, Index, Manifest, best_of, encoded, is_outdated, languages_of
from ragbot.lexical import Lexical
from ragbot.part import Part
from ragbot.records import Chunks, Documents, write_chunks, write_documents
from ragbot.types import Chunk, Document, Language, Progress
from ragbot.vectors import Vectors, joined, key

if TYPE_CHECKING:
    from numpy import float32, int64, uint8, uint16
    from numpy.typing import NDArray

JOURNAL = "encoding.part"
LOCK = "writer.lock"
_BLOCK = 1 << 14  # rows that are copied at once


class FaissIndex:
    """An opened index of a folder; see `ragbot.index.Index`."""

    def __init__(self, manifest: Manifest, folder: Path):
        """Open the files in `folder`. Raises OSError, ValueError, RuntimeError: not whole."""
        import numpy as np

        self.manifest = manifest
        self.documents: Mapping[str, Document] = Documents(folder)
        self.chunks = Chunks(folder)
        self.dense = Dense.load(folder)
        self._lexical = Lexical.load(folder / "bm25", len(self.chunks))
        self._keys = np.load(folder / "keys.npy", mmap_mode="r", allow_pickle=False)

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        return self.find(vector, query, limit, None)

    def find(
        self, vector: NDArray[float32], query: str, limit: int, among: Part | None
    ) -> list[Candidate]:
        import numpy as np

        numbers = among.numbers if among else None
        places, shares = self._lexical.best(query, limit, numbers)
        ids = np.union1d(self.dense.nearest(vector, limit * WIDTH, numbers), places)
        passage, sentence = self.dense.cosines(ids, vector)
        chosen = best_of(passage, sentence, np.isin(ids, places), limit)
        rows = np.stack([passage, sentence, shares[ids]], axis=1)[chosen].tolist()
        return [
            Candidate(id, self.chunks[id], *scores)
            for id, scores in zip(ids[chosen].tolist(), rows, strict=True)
        ]

    @cached_property
    def languages(self) -> frozenset[Language]:
        return languages_of(self.chunks)

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        at = self.number(chunk)
        return self.chunks[max(0, at - most) : at + most + 1]

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        rows = self.dense.rows_of(self.number(chunk))
        return rows[1:] if len(rows) > 1 else rows

    def within(self, names: Collection[str]) -> Index:
        return Part(self, frozenset(names))

    def numbers(self, names: frozenset[str]) -> NDArray[int64]:
        import numpy as np

        return np.sort(np.array([n for name in names for n in self._owned.get(name, ())], np.int64))

    def some(self, numbers: Sequence[int]) -> Sequence[Chunk]:
        return self.chunks.some(numbers)

    def number(self, chunk: Chunk) -> int:
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

    def current(self) -> FaissIndex:
        return self

    @cached_property
    def _owned(self) -> Mapping[str, Sequence[int]]:
        """The numbers of each document's chunks."""
        owned: defaultdict[str, list[int]] = defaultdict(list)
        for number, chunk in enumerate(self.chunks):
            owned[chunk.doc].append(number)
        return owned

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
) -> FaissIndex:
    """Write the index of `chunks` to `folder`, reusing the vectors of unchanged text.

    `progress` counts bytes of text. Raises StoreError when the folder cannot be written. Killed at
    any moment, it leaves the old index as it was, and what was encoded to the next run; a second
    writer waits for the first.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            old = _old_vectors(folder, encoder)
            vectors = Vectors(folder / JOURNAL, encoder.fingerprint, encoder.dimension, old)
            keys, starts = encoded(vectors, chunks, encoder, progress)
            manifest = Manifest.of(encoder, documents, chunks, len(keys))

            def write(target: Path) -> None:
                rows = _write_rows(target, vectors, keys)
                Dense.build(rows, starts).save(target)
                Lexical.build([chunk.passage for chunk in chunks]).save(target / "bm25")
                write_chunks(target, chunks)
                write_documents(target, documents)

            store.publish(folder, write, asdict(manifest))
            vectors.discard()
            return FaissIndex(manifest, folder / store.read_manifest(folder)["generation"])
    except OSError as error:
        raise StoreError(
            f"The index cannot be written to {folder} ({error.strerror or error}): free some space "
            "or name another folder with --index."
        ) from error


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


# --- opening ---------------------------------------------------------------------------------


def open_index(folder: Path, encoder_fingerprint: str) -> FaissIndex:
    """Open the index in `folder`, made by the encoder of that fingerprint.

    Raises StoreError: there is none, it is damaged, of a newer format, or another encoder's.
    """
    kept = store.read_manifest(folder)
    manifest = Manifest.read(kept, folder)
    manifest.require_encoder(encoder_fingerprint, folder)
    try:
        return FaissIndex(manifest, store.verified(folder, kept))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if store.read_manifest(folder) != kept:  # a writer replaced it while we were reading
            return open_index(folder, encoder_fingerprint)
        raise StoreError(f"The index in {folder} is damaged ({error}): {store.MEND}.") from error


def outdated(folder: Path, encoder: Encoder) -> bool:
    """Whether an older ragbot made the index in `folder`, by the encoder that still has the name.

    Raises StoreError when nothing can be told of it.
    """
    return is_outdated(store.read_manifest(folder), encoder)


def read_manifest(folder: Path) -> Manifest:
    """What the index in `folder` is, without opening it. Raises StoreError."""
    return Manifest.read(store.read_manifest(folder), folder)
