"""An index that lies on Milvus, opened: one generation, which the alias named when it was opened.

Milvus names what could be found, twice over: by the passages' vectors and by their words. Scores
are then counted here from what the rows hold, as they are in a folder's index, so that both engines
rank alike, and alike texts have equal scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ragbot.address import Milvus
from ragbot.dense import WIDTH, best_cosines
from ragbot.index import Candidate, Index, Manifest, best_of, languages_of, row_texts
from ragbot.milvus.client import damaged, told
from ragbot.milvus.content import StoredChunks, StoredDocuments, pages
from ragbot.milvus.facts import count
from ragbot.milvus.generation import (
    MOST_ROWS,
    WORD,
    Generation,
    Wanted,
    generation_name,
    kept_manifest,
    load,
    opened,
)
from ragbot.milvus.rows import (
    CHUNK_FIELDS,
    chunk_id,
    chunk_of,
    of_documents,
    query_weights,
    share,
    vectors_of,
)
from ragbot.part import Part
from ragbot.types import Chunk, Document, Language
from ragbot.vectors import floats, joined, key
from ragbot.words import words

if TYPE_CHECKING:
    from numpy import float32, int64, uint8, uint16
    from numpy.typing import NDArray

_NUMBERS = 100_000  # of chunks that are asked for at once


class MilvusIndex:
    """An opened index of a server; see `ragbot.index.Index`."""

    def __init__(self, manifest: Manifest, generation: Generation):
        self.manifest = manifest
        self._generation = generation
        self.chunks: Sequence[Chunk] = self.some(range(manifest.chunks))
        self.documents: Mapping[str, Document] = StoredDocuments(generation)

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        return self.find(vector, query, limit, None)

    def find(
        self, vector: NDArray[float32], query: str, limit: int, among: Part | None
    ) -> list[Candidate]:
        import numpy as np

        if not self.manifest.chunks:
            return []
        only = of_documents(among.names) if among else ""
        weights = self._weights(query)
        wide = limit * WIDTH
        settings = {} if self.manifest.exact else {"ef": min(2 * wide, MOST_ROWS)}
        nearest = Wanted("passage", vector.tolist(), only)
        rows = self._generation.search(nearest, wide, settings)
        held = self._held(weights, limit, only)
        found = {int(row["number"]): row for row in (*rows, *held.values())}
        ids = sorted(found)
        passage, sentence = self._cosines([found[id] for id in ids], vector)
        chosen = best_of(passage, sentence, np.array([id in held for id in ids]), limit)
        return [
            Candidate(
                ids[n],
                chunk_of(found[ids[n]]),
                float(passage[n]),
                float(sentence[n]),
                share(found[ids[n]], weights),
            )
            for n in np.flatnonzero(chosen).tolist()
        ]

    def _weights(self, query: str) -> dict[int, float]:
        asked = words(query)
        kept = self._generation.facts.take([WORD + word for word in dict.fromkeys(asked)])
        frequency = {name.removeprefix(WORD): int(value) for name, value in kept.items()}
        return query_weights(asked, frequency, self.manifest.chunks)

    def _held(
        self, weights: Mapping[int, float], limit: int, only: str
    ) -> dict[int, Mapping[str, Any]]:
        """The `limit` rows that hold most of a query; of equals the first in the corpus."""
        if not weights:
            return {}
        # Milvus breaks ties as it likes: from twice as many the first are taken.
        rows = self._generation.search(Wanted("words", dict(weights), only), 2 * limit, {})
        best = sorted(rows, key=lambda row: (-share(row, weights), row["number"]))[:limit]
        return {int(row["number"]): row for row in best}

    def _cosines(
        self, rows: Sequence[Mapping[str, Any]], vector: NDArray[float32]
    ) -> tuple[NDArray[float32], NDArray[float32]]:
        import numpy as np

        parts = [vectors_of(row, self.manifest.dimension) for row in rows]
        size = np.array([len(part) for part in parts], dtype=np.int64)
        nothing = np.empty((0, self.manifest.dimension), np.uint16)
        return best_cosines(floats(np.concatenate([nothing, *parts])), size, vector)

    @cached_property
    def languages(self) -> frozenset[Language]:
        return languages_of(self.chunks)

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        at = self.number(chunk)
        return self.chunks[max(0, at - most) : at + most + 1]

    def number(self, chunk: Chunk) -> int:
        return int(self._row(chunk, CHUNK_FIELDS)["number"])

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        rows = floats(vectors_of(self._row(chunk, ["rows"]), self.manifest.dimension))
        return rows[1:] if len(rows) > 1 else rows

    def _row(self, chunk: Chunk, fields: Sequence[str]) -> Mapping[str, Any]:
        found = self._generation.query(f'id == "{chunk_id(chunk)}"', fields)
        if not found:
            raise KeyError(chunk)
        return found[0]

    def within(self, names: Collection[str]) -> Index:
        return Part(self, frozenset(names))

    def numbers(self, names: frozenset[str]) -> NDArray[int64]:
        import numpy as np

        found: list[int] = []
        for first in range(0, self.manifest.chunks if names else 0, _NUMBERS):
            here = f"number >= {first} and number < {first + _NUMBERS} and {of_documents(names)}"
            found += [int(row["number"]) for row in self._generation.query(here, [])]
        return np.array(found, np.int64)

    def some(self, numbers: Sequence[int]) -> Sequence[Chunk]:
        return StoredChunks(self._generation, numbers)

    @property
    def rows(self) -> tuple[NDArray[uint8], NDArray[uint16]]:
        """Every vector with the key of its text, for the index that comes after this one."""
        import numpy as np

        keys: list[bytes] = []
        parts = [np.empty((0, self.manifest.dimension), np.uint16)]
        for row in pages(self._generation, range(self.manifest.chunks), [*CHUNK_FIELDS, "rows"]):
            texts, own = row_texts(chunk_of(row)), vectors_of(row, self.manifest.dimension)
            if len(texts) == len(own):  # else an older ragbot parted sentences otherwise
                keys += map(key, texts)
                parts.append(own)
        return joined(keys), np.concatenate(parts)

    def current(self) -> Index:
        place, client = self._generation.place, self._generation.client
        if generation_name(client, place) != self._generation.name:
            return open_milvus(place, self.manifest.encoder_fingerprint)
        with told(place):
            load(client, self._generation.name)  # a server that started anew may not have
        return self


# --- opening ---------------------------------------------------------------------------------


def open_milvus(place: Milvus, encoder_fingerprint: str) -> MilvusIndex:
    """Open the index at `place`, made by the encoder of that fingerprint.

    Raises ConfigError: a library is missing; StoreError: there is no server, no index, it is
    damaged, of a newer format, or another encoder's.
    """
    generation = opened(place)
    manifest = Manifest.read(kept_manifest(generation), place)
    manifest.require_encoder(encoder_fingerprint, place)
    found = count(generation.client, place, generation.name)
    if found != manifest.chunks:
        raise damaged(place, f"it has {found} of {manifest.chunks} chunks")
    return MilvusIndex(manifest, generation)
