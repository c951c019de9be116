"""Writing an index on Milvus: a new generation is filled, counted, and then the alias is switched.

Readers find the old index until the alias names the new one, and all of that one from then on. What
a killed writer left is removed by the next; a writer that is alive elsewhere is not disturbed.
"""

from __future__ import annotations

import json
import platform
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ragbot.address import Milvus
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.index import Manifest, encoded
from ragbot.milvus.client import QUICK, SETTLE, WRITE, connect, damaged, told
from ragbot.milvus.facts import Facts, count
from ragbot.milvus.generation import DOCUMENT, FACTS, MANIFEST, NAMES, WORD, generation_name
from ragbot.milvus.index import MilvusIndex, open_milvus
from ragbot.milvus.rows import Row, record, schema
from ragbot.types import Chunk, Document, Progress
from ragbot.vectors import Vectors
from ragbot.words import words

if TYPE_CHECKING:
    from numpy import int64, uint8, uint16
    from numpy.typing import NDArray
    from pymilvus import MilvusClient

JOURNAL = "encoding.part"
_LOCK = "writer.lock"
_WRITER = "writer"
_DEAD = 3600.0  # seconds without a sign of life; the server's work on millions of rows is one step
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Draft:
    """A generation that is being filled. It can be pickled: several processes may feed it."""

    place: Milvus
    name: str
    mean_words: float
    writer: str

    def alive(self, client: MilvusClient) -> Facts:
        """Its facts, in which it is noted that its writer lives."""
        facts = Facts(client, self.place, self.name + FACTS)
        facts.put({_WRITER: json.dumps([self.writer, time.time()])})
        return facts


def begin(place: Milvus, dimension: int, mean_words: float, writer: str) -> Draft:
    """Start a generation, and remove those that were begun and not finished.

    `mean_words` is the mean number of words of the passages. `writer` names who writes: what the
    same began before counts as given up, so its caller sees to it that only one of that name is at
    work. Raises StoreError: another one is, or the server fails.
    """
    client = connect(place)
    generation_name(client, place)  # a collection of something else is in the way: said at once
    _sweep(client, place, writer)
    made = f"{time.time_ns() // 1_000_000:x}_{secrets.token_hex(4)}"
    draft = Draft(place, f"{place.name}_{made}", mean_words, writer)
    Facts(client, place, draft.name + FACTS).create()
    draft.alive(client)
    with told(place):
        client.create_collection(draft.name, schema=schema(client, dimension), timeout=WRITE)
    if min(_unfinished(client, place)) < draft.name:  # two began at once: the first goes on
        abandon(draft)
        raise _busy(place, "elsewhere")
    return draft


def feed(draft: Draft, rows: Iterable[Row]) -> None:
    """Write rows, in any order, from any process; the same row twice changes nothing.

    Raises StoreError.
    """
    client = connect(draft.place)
    left = iter(rows)
    while batch := [record(row, draft.mean_words) for row in islice(left, _BATCH)]:
        with told(draft.place):
            client.upsert(draft.name, batch, timeout=WRITE)
        draft.alive(client)


def finish(
    draft: Draft, manifest: Manifest, documents: Sequence[Document], frequency: Mapping[str, int]
) -> None:
    """Make a generation that is whole the index, and drop the one before.

    `frequency` tells in how many chunks each word is. Raises StoreError, above all when rows are
    missing; the old index then stays.
    """
    client, place = connect(draft.place), draft.place
    facts = draft.alive(client)
    facts.put({DOCUMENT + document.name: _json(asdict(document)) for document in documents})
    facts.put({WORD + word: str(number) for word, number in frequency.items()})
    facts.put({NAMES: _json([document.name for document in documents])})
    facts.put({MANIFEST: _json(asdict(manifest))})
    _settle(client, draft, exact=manifest.exact)
    found = count(client, place, draft.name)
    if found != manifest.chunks:
        raise damaged(place, f"{found} of {manifest.chunks} chunks were written")
    draft.alive(client)
    with told(place):
        if old := generation_name(client, place):
            client.alter_alias(draft.name, place.name, timeout=QUICK)
            _drop(client, old)
        else:
            client.create_alias(draft.name, place.name, timeout=QUICK)


def abandon(draft: Draft) -> None:
    """Drop what was begun; the old index stays. Raises StoreError."""
    client = connect(draft.place)
    with told(draft.place):
        _drop(client, draft.name)


def _settle(client: MilvusClient, draft: Draft, *, exact: bool) -> None:
    """Have the server index and load what was written."""
    params = client.prepare_index_params()
    if exact:
        params.add_index("passage", index_type="FLAT", metric_type="IP")
    else:
        graph = {"M": 32, "efConstruction": 360}
        params.add_index("passage", index_type="HNSW", metric_type="IP", params=graph)
    params.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    for field in ("number", "doc"):
        params.add_index(field, index_type="INVERTED")
    with told(draft.place):
        client.flush(draft.name, timeout=SETTLE)
        client.create_index(draft.name, params, timeout=SETTLE)
        client.load_collection(draft.name, timeout=SETTLE)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- what others left, or are at -------------------------------------------------------------


def _sweep(client: MilvusClient, place: Milvus, writer: str) -> None:
    """Drop the generations that nobody fills any more. Raises StoreError: somebody does."""
    for name in _unfinished(client, place):
        facts = Facts(client, place, name + FACTS)
        with told(place):
            # Without an index it was killed before it could note who it is.
            known = client.has_collection(facts.name, timeout=QUICK)
            known = known and bool(client.list_indexes(facts.name))
            if known:
                client.load_collection(facts.name, timeout=WRITE)
        kept = facts.take([_WRITER]).get(_WRITER) if known else None
        who, when = json.loads(kept) if kept else (writer, 0.0)
        if who != writer and time.time() - when < _DEAD:
            raise _busy(place, f"on {who.partition(':')[0]}, as of {time.time() - when:.0f} s ago")
        with told(place):
            _drop(client, name)


def _unfinished(client: MilvusClient, place: Milvus) -> list[str]:
    form = re.compile(rf"({re.escape(place.name)}_[0-9a-f]{{11}}_[0-9a-f]{{8}})({FACTS})?")
    with told(place):
        names = client.list_collections(timeout=QUICK)
    current = generation_name(client, place)
    return sorted({found[1] for found in map(form.fullmatch, names) if found} - {current})


def _drop(client: MilvusClient, name: str) -> None:
    # Facts go last: they tell whose the rest is.
    for collection in (name, name + FACTS):
        client.drop_collection(collection, timeout=WRITE)


def _busy(place: Milvus, where: str) -> StoreError:
    return StoreError(
        f"Another writer fills the index in {place} ({where}): wait for it or, if it was killed,"
        f" an hour, or drop the unfinished collections {place.name}_* by hand."
    )


# --- the whole of it -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Desk:
    """An index's place, and the folder of this machine where those who write it take turns."""

    place: Milvus
    folder: Path

    @property
    def writer(self) -> str:
        """Who writes here: one at a time, since the folder has a lock."""
        return f"{platform.node()}:{self.folder.resolve()}"


def build_milvus(
    desk: Desk,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    encoder: Encoder,
    progress: Progress | None = None,
) -> MilvusIndex:
    """Write the index of `chunks`, reusing the vectors of unchanged text.

    `progress` counts bytes of text. Raises StoreError. Killed at any moment, it leaves the old
    index as it was, and what was encoded to the next run; a second writer of this machine waits for
    the first, one of another is refused.
    """
    from filelock import FileLock

    generation_name(connect(desk.place), desk.place)  # before hours of encoding
    try:
        desk.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(desk.folder / _LOCK):
            old = _old_vectors(desk.place, encoder)
            journal = desk.folder / JOURNAL
            vectors = Vectors(journal, encoder.fingerprint, encoder.dimension, old)
            keys, starts = encoded(vectors, chunks, encoder, progress)
            bags = [words(chunk.passage) for chunk in chunks]
            with _draft(desk, encoder.dimension, _mean(bags)) as draft:
                feed(draft, _rows(chunks, bags, keys, starts, vectors))
                manifest = Manifest.of(encoder, documents, chunks, len(keys))
                frequency = Counter(word for bag in bags for word in set(bag))
                finish(draft, manifest, documents, frequency)
            vectors.discard()
            return open_milvus(desk.place, encoder.fingerprint)
    except OSError as error:
        raise StoreError(
            f"What is encoded cannot be kept in {desk.folder} ({error.strerror or error}): free"
            " some space, or set RAGBOT_CACHE."
        ) from error


def _rows(
    chunks: Sequence[Chunk],
    bags: Sequence[Sequence[str]],
    keys: Sequence[bytes],
    starts: NDArray[int64],
    vectors: Vectors,
) -> Iterator[Row]:
    for number, (chunk, bag) in enumerate(zip(chunks, bags, strict=True)):
        own = keys[starts[number] : starts[number + 1]]
        yield Row(number, chunk, bag, vectors.rows(own))


@contextmanager
def _draft(desk: Desk, dimension: int, mean_words: float) -> Iterator[Draft]:
    """A draft to fill and to finish; what fails leaves nothing of it."""
    draft = begin(desk.place, dimension, mean_words, desk.writer)
    try:
        yield draft
    except BaseException:
        with suppress(StoreError):  # the server may be what failed; the next writer removes it
            abandon(draft)
        raise


def _mean(bags: Sequence[Sequence[str]]) -> float:
    return sum(map(len, bags)) / max(1, len(bags))


def _old_vectors(place: Milvus, encoder: Encoder) -> tuple[NDArray[uint8], NDArray[uint16]] | None:
    """Keys and rows of the index that is there; none when it is damaged, or another encoder's."""
    try:
        return open_milvus(place, encoder.fingerprint).rows
    except (StoreError, ValueError):
        return None
