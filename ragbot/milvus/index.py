"""An index that lies on Milvus, opened: one generation, which the alias named when it was opened.

Milvus names what could be found, twice over: by the passages' vectors and by their words. Scores
are then counted here from what the rows hold, as they are in a folder's index, so that both engines
rank alike, and alike texts have equal scores.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, overload

from ragbot.address import Milvus
from ragbot.dense import WIDTH, best_cosines
from ragbot.errors import StoreError
from ragbot.index import Candidate, Index, Manifest, best_of, languages_of, row_texts
from ragbot.milvus.client import QUICK, WRITE, connect, damaged, told
from ragbot.milvus.facts import Facts, count
from ragbot.milvus.rows import (
    CHUNK_FIELDS,
    FIELDS,
    chunk_id,
    chunk_of,
    query_weights,
    share,
    vectors_of,
)
from ragbot.records import document_from
from ragbot.types import Chunk, Document, Language
from ragbot.vectors import floats, joined, key
from ragbot.words import words

if TYPE_CHECKING:
    from numpy import float32, uint8, uint16
    from numpy.typing import NDArray
    from pymilvus import MilvusClient

MANIFEST, NAMES, SOURCE, DOCUMENT, WORD = "manifest", "names", "source", "document:", "word:"
FACTS = "_facts"  # ends the name of a generation's second collection
_MOST = 16_384  # rows that Milvus gives at once
_PAGE = 500
_KEPT = 32  # documents that are held once read


class Generation:
    """The collections of one generation, for those who read it. Every method raises StoreError."""

    def __init__(self, client: MilvusClient, place: Milvus, name: str):
        self.client, self.place, self.name = client, place, name
        self.facts = Facts(client, place, name + FACTS)

    def query(self, condition: str, fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """The rows for which a condition holds, in order of their numbers."""
        with told(self.place):
            rows = self.client.query(
                self.name, filter=condition, output_fields=["number", *fields], timeout=WRITE
            )
            return sorted(rows, key=lambda row: int(row["number"]))

    def search(
        self, field: str, wanted: object, limit: int, settings: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        """The `limit` rows whose `field` has the greatest product with what is wanted."""
        with told(self.place):
            found = self.client.search(
                self.name,
                data=[wanted],
                anns_field=field,
                limit=min(limit, _MOST),
                output_fields=FIELDS,
                search_params={"metric_type": "IP", "params": dict(settings)},
                timeout=QUICK,
            )
            return [hit["entity"] for hit in found[0]]

    def text(self, name: str) -> str:
        """A text of its facts; an index that lacks it is damaged."""
        found = self.facts.take([name])
        if name not in found:
            raise damaged(self.place, f"its {name} is missing")
        return found[name]


class MilvusIndex:
    """An opened index of a server; see `ragbot.index.Index`."""

    def __init__(self, manifest: Manifest, generation: Generation):
        self.manifest = manifest
        self._generation = generation
        self.chunks: Sequence[Chunk] = _Chunks(generation, manifest.chunks)
        self.documents: Mapping[str, Document] = _Documents(generation)

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        import numpy as np

        if not self.manifest.chunks:
            return []
        weights = self._weights(query)
        wide = limit * WIDTH
        settings = {} if self.manifest.exact else {"ef": min(2 * wide, _MOST)}
        rows = self._generation.search("passage", vector.tolist(), wide, settings)
        held = self._held(weights, limit)
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

    def _held(self, weights: Mapping[int, float], limit: int) -> dict[int, Mapping[str, Any]]:
        """The `limit` rows that hold most of a query; of equals the first in the corpus."""
        if not weights:
            return {}
        # Milvus breaks ties as it likes: from twice as many the first are taken.
        rows = self._generation.search("words", dict(weights), 2 * limit, {})
        best = sorted(rows, key=lambda row: (-share(row, weights), row["number"]))[:limit]
        return {int(row["number"]): row for row in best}

    def _cosines(
        self, rows: Sequence[Mapping[str, Any]], vector: NDArray[float32]
    ) -> tuple[NDArray[float32], NDArray[float32]]:
        import numpy as np

        parts = [b64decode("".join(row["rows"])) for row in rows]
        whole = np.frombuffer(b"".join(parts), "<u2").reshape(-1, self.manifest.dimension)
        size = np.array([len(part) for part in parts]) // (2 * self.manifest.dimension)
        return best_cosines(floats(whole), size, vector)

    @cached_property
    def languages(self) -> frozenset[Language]:
        return languages_of(self.chunks)

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        at = int(self._row(chunk, CHUNK_FIELDS)["number"])
        return self.chunks[max(0, at - most) : at + most + 1]

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        rows = floats(vectors_of(self._row(chunk, ["rows"]), self.manifest.dimension))
        return rows[1:] if len(rows) > 1 else rows

    def _row(self, chunk: Chunk, fields: Sequence[str]) -> Mapping[str, Any]:
        found = self._generation.query(f'id == "{chunk_id(chunk)}"', fields)
        if not found:
            raise KeyError(chunk)
        return found[0]

    @property
    def rows(self) -> tuple[NDArray[uint8], NDArray[uint16]]:
        import numpy as np

        keys: list[bytes] = []
        parts = [np.empty((0, self.manifest.dimension), np.uint16)]
        for row in _pages(self._generation, self.manifest.chunks, [*CHUNK_FIELDS, "rows"]):
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
            _load(client, self._generation.name)  # a server that started anew may not have
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


def opened(place: Milvus) -> Generation:
    """The generation that the alias names now, loaded. Raises ConfigError, StoreError."""
    client = connect(place)
    name = generation_name(client, place)
    if not name:
        raise StoreError(f"There is no index in {place}: build it with `ragbot index`.")
    with told(place):
        _load(client, name)
    return Generation(client, place, name)


def stands(place: Milvus) -> bool:
    """Whether there is an index at `place`. Raises ConfigError, StoreError."""
    return bool(generation_name(connect(place), place))


def generation_name(client: MilvusClient, place: Milvus) -> str:
    """The collection that the alias names; empty when there is none. Raises StoreError."""
    with told(place):
        if not client.has_collection(place.name, timeout=QUICK):
            return ""
        found = client.describe_collection(place.name, timeout=QUICK)
        aliases = client.list_aliases(found["collection_name"], timeout=QUICK)["aliases"]
    if place.name not in aliases:
        raise StoreError(
            f"{place} is a collection of something else: name another for the index with --index."
        )
    return str(found["collection_name"])


def kept_manifest(generation: Generation) -> dict[str, Any]:
    """What is kept of the index as a whole. Raises StoreError."""
    try:
        kept: dict[str, Any] = json.loads(generation.text(MANIFEST))
        return kept
    except ValueError as error:
        raise damaged(generation.place, error) from error


def _load(client: MilvusClient, name: str) -> None:
    from pymilvus.client.types import LoadState

    for collection in (name, name + FACTS):
        if client.get_load_state(collection, timeout=QUICK)["state"] != LoadState.Loaded:
            client.load_collection(collection, timeout=WRITE)


# --- what is read when it is asked for -------------------------------------------------------


def _pages(
    generation: Generation, size: int, fields: Sequence[str], numbers: range | None = None
) -> Iterator[Mapping[str, Any]]:
    """The rows of some numbers, or all, in order, a page at a time."""
    numbers = range(size) if numbers is None else numbers
    for first in range(0, len(numbers), _PAGE):
        page = numbers[first : first + _PAGE]
        if page.step == 1:
            condition = f"number >= {page.start} and number < {page.stop}"
        else:
            condition = f"number in {list(page)}"
        rows = generation.query(condition, fields)
        if len(rows) != len(page):
            raise damaged(generation.place, f"it lacks {len(page) - len(rows)} chunks")
        yield from rows if page.step > 0 else reversed(rows)


class _Chunks(Sequence[Chunk]):
    """The chunks of a generation, in order."""

    def __init__(self, generation: Generation, size: int):
        self._generation, self._size = generation, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Chunk]:
        return map(chunk_of, _pages(self._generation, self._size, CHUNK_FIELDS))

    @overload
    def __getitem__(self, at: int) -> Chunk: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Chunk, ...]: ...
    def __getitem__(self, at: int | slice) -> Chunk | tuple[Chunk, ...]:
        numbers = range(self._size)[at]
        if isinstance(numbers, range):
            return tuple(map(chunk_of, _pages(self._generation, self._size, CHUNK_FIELDS, numbers)))
        return self[numbers : numbers + 1][0]


class _Documents(Mapping[str, Document]):
    """The documents of a generation, by their names."""

    def __init__(self, generation: Generation):
        self._generation = generation
        self._document = lru_cache(_KEPT)(self._read)

    @cached_property
    def _names(self) -> Mapping[str, None]:
        return dict.fromkeys(json.loads(self._generation.text(NAMES)))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Document:
        if name not in self._names:
            raise KeyError(name)
        return self._document(name)

    def _read(self, name: str) -> Document:
        try:
            return document_from(json.loads(self._generation.text(DOCUMENT + name)))
        except (ValueError, TypeError, LookupError) as error:
            raise damaged(self._generation.place, error) from error
