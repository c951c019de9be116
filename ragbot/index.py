"""What an index is, whatever engine keeps it: what can be asked of it, and what it is made from.

The engines are `faiss_index`, in this process, and `milvus`, on a server.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from ragbot.dense import Dense
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.store import MEND
from ragbot.text import detect_language, sentences
from ragbot.types import Chunk, Document, Language, Progress
from ragbot.vectors import Vectors, encode, key

if TYPE_CHECKING:
    from numpy import bool_, float32, int64
    from numpy.typing import NDArray

FORMAT = 2
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
    exact: bool

    @classmethod
    def of(
        cls, encoder: Encoder, documents: Sequence[Document], chunks: Sequence[Chunk], vectors: int
    ) -> Manifest:
        """That of an index of these chunks, which have so many vectors."""
        return cls(
            format=FORMAT,
            encoder=encoder.name,
            encoder_fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            corpus_fingerprint=_fingerprint(documents),
            documents=len(documents),
            chunks=len(chunks),
            vectors=vectors,
            exact=Dense.exact(len(chunks)),
        )

    @classmethod
    def read(cls, kept: Mapping[str, Any], place: object) -> Manifest:
        """That of the index at `place`, from what is kept there. Raises StoreError."""
        if kept.get("format") != FORMAT:
            raise StoreError(
                f"The index in {place} is of format {kept.get('format')}, this ragbot reads"
                f" {FORMAT}: update ragbot, or {MEND}."
            )
        try:
            return cls(**{field.name: kept[field.name] for field in fields(cls)})
        except KeyError as error:
            raise StoreError(f"The manifest in {place} lacks {error}: {MEND}.") from error

    def require_encoder(self, fingerprint: str, place: object) -> None:
        """Raise StoreError when another encoder made the index at `place`."""
        if self.encoder_fingerprint != fingerprint:
            raise StoreError(
                f"The index in {place} was made by another encoder ({self.encoder}): {MEND}."
            )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk with its scores for one query; ids follow the corpus's order.

    `passage` and `sentence` are cosines, of the whole chunk and of its best sentence; `lexical` is
    the share of the query's words, by weight, that the chunk holds.
    """

    id: int
    chunk: Chunk
    passage: float
    sentence: float
    lexical: float


class Index(Protocol):
    """An opened index: the chunks, the documents they come from, and two ways to find them.

    It stays what it was when it was opened. An index on a server may raise StoreError wherever it
    is asked something.
    """

    manifest: Manifest
    documents: Mapping[str, Document]

    @property
    def chunks(self) -> Sequence[Chunk]:
        """All chunks, in the corpus's order."""
        ...

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        """Candidates for a query of which `vector` (d,) is the encoding, in order of their ids.

        They are the best by both cosines, twice `limit`, and the best `limit` by their words, when
        there are as many chunks; each carries all three scores, whichever of them brought it in.
        """
        ...

    @property
    def languages(self) -> frozenset[Language]:
        """The languages that a document is in, wholly or for a good part, as a sample shows them;
        Chinese in one of its scripts."""
        ...

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        """A chunk with up to `most` before and behind it, in order, whatever their documents.

        Raises KeyError: the chunk is none of this index.
        """
        ...

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        """The vectors of a chunk's sentences, in order: (m, d) float32, unit length."""
        ...

    def within(self, names: Collection[str]) -> Index:
        """This index as if the documents of those names were all: nothing of others is found, and
        as much of these as if there were no others. A chunk scores what it always does, so a word
        is as rare as in the whole. A name of no document adds nothing."""
        ...

    def current(self) -> Index:
        """This index or, when a writer has replaced it where it is kept, the one there is now;
        within the same documents."""
        ...


def languages_of(chunks: Sequence[Chunk]) -> frozenset[Language]:
    """What `Index.languages` tells."""
    sample = chunks[:: max(1, len(chunks) // _SAMPLE)]
    found = Counter((chunk.doc, detect_language(chunk.text)) for chunk in sample)
    size = Counter(chunk.doc for chunk in sample)
    spoken = {lang for (doc, lang), n in found.items() if n >= _GOOD_PART * size[doc]}
    return frozenset(spoken - {"zh-Hant"} if "zh-Hans" in spoken else spoken)


def best_of(
    passage: NDArray[float32], sentence: NDArray[float32], held: NDArray[bool_], limit: int
) -> NDArray[bool_]:
    """Which chunks, in order of their ids, are candidates: those held, and the best by cosines."""
    import numpy as np

    chosen: NDArray[bool_] = held.copy()
    chosen[np.argsort(-(passage + sentence), kind="stable")[: 2 * limit]] = True
    return chosen


def is_outdated(kept: Mapping[str, Any], encoder: Encoder) -> bool:
    """Whether an older ragbot made the index whose manifest this is, by the encoder that still has
    the name."""
    made, older = kept.get("format"), kept.get("encoder_fingerprint") != encoder.fingerprint
    return kept.get("encoder") == encoder.name and (
        older or (isinstance(made, int) and made < FORMAT)
    )


# --- what it is made from --------------------------------------------------------------------


def row_texts(chunk: Chunk) -> list[str]:
    """The texts that stand for a chunk: itself, and its sentences when it has more than one."""
    spans = sentences(chunk.text)
    parts = [chunk.text[start:end] for start, end in spans] if len(spans) > 1 else []
    return [chunk.passage, *parts]


def encoded(
    vectors: Vectors, chunks: Sequence[Chunk], encoder: Encoder, progress: Progress | None
) -> tuple[list[bytes], NDArray[int64]]:
    """The keys of all rows, and where each chunk's begin; the vectors then hold every one.

    `progress` counts bytes of text. Raises OSError.
    """
    import numpy as np

    keys: list[bytes] = []
    starts = [0]
    fresh: dict[bytes, str] = {}
    for chunk in chunks:
        for text in row_texts(chunk):
            keys.append(key(text))
            if keys[-1] not in vectors:
                fresh[keys[-1]] = text
        starts.append(len(keys))
    encode(vectors, fresh, encoder.in_parts, progress)
    return keys, np.array(starts, dtype=np.int64)


def _fingerprint(documents: Sequence[Document]) -> str:
    digest = hashlib.sha256()
    for document in sorted(documents, key=lambda d: d.name):
        digest.update(json.dumps([document.name, document.title, document.text]).encode())
    return digest.hexdigest()
