"""What Milvus keeps of a chunk: a row, and the weights of words on both sides of a search.

A row has the passage's vector, which is searched, and its words' weights, which are searched, too.
The vectors of its sentences, which are only ever scored for passages that were found, lie beside
them as text: as a collection of their own they would be several times as many vectors to hold in
the server's memory, and never searched by themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragbot.types import Chunk
from ragbot.vectors import floats

if TYPE_CHECKING:
    from numpy import uint16
    from numpy.typing import NDArray

CHUNK_FIELDS = ["doc", "paragraph", "start", "end", "text", "headings"]
FIELDS = ["number", *CHUNK_FIELDS, "rows", "words"]

_K1, _B = 1.5, 0.75  # BM25's usual ones, and bm25s's
_DIMENSIONS = (1 << 32) - 2  # of a sparse vector in Milvus, but for one
_NO_WORD = _DIMENSIONS  # what a chunk without words has, since no vector may be empty
_PIECE = 60_000  # characters of one string in a list; Milvus allows 65,535 bytes
_PIECES = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk with its place in the corpus's order, its passage's words and its vectors.

    The vectors are (1 + m, d) bfloat16, its own first, then those of its sentences; m is 0 where
    there is only one.
    """

    number: int
    chunk: Chunk
    words: Sequence[str]
    vectors: NDArray[uint16]


def schema(client: Any, dimension: int) -> Any:
    """The fields of a collection of chunks, for pymilvus."""
    from pymilvus import DataType

    fields = client.create_schema(auto_id=False, enable_dynamic_field=False)
    fields.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
    for name in ("number", "paragraph", "start", "end"):
        fields.add_field(name, DataType.INT64)
    for name in ("doc", "text"):
        fields.add_field(name, DataType.VARCHAR, max_length=65_535)
    fields.add_field("headings", DataType.JSON)
    fields.add_field(
        "rows",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=_PIECES,
        max_length=65_535,
    )
    fields.add_field("passage", DataType.FLOAT_VECTOR, dim=dimension)
    fields.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    return fields


def record(row: Row, mean_words: float) -> dict[str, Any]:
    """The row as pymilvus takes it."""
    chunk = row.chunk
    text = b64encode(row.vectors.astype("<u2").tobytes()).decode()
    return {
        "id": chunk_id(chunk),
        "number": row.number,
        "doc": chunk.doc,
        "paragraph": chunk.paragraph,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "headings": list(chunk.headings),
        "rows": [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)],
        "passage": floats(row.vectors[0]).tolist(),
        "words": _weights(row.words, mean_words),
    }


def chunk_id(chunk: Chunk) -> str:
    """What a chunk is found by: the same for the same text at the same place of a document."""
    key = "\0".join((chunk.doc, str(chunk.start), str(chunk.end), chunk.passage))
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def of_documents(names: Collection[str]) -> str:
    """The condition that a row is of one of those documents, in Milvus's language.

    Its strings have JSON's escapes; values apart from it, Milvus Lite does not take.
    """
    return f"doc in {json.dumps(sorted(names), ensure_ascii=False)}"


def chunk_of(entity: Mapping[str, Any]) -> Chunk:
    """The chunk that a row holds."""
    values = {name: entity[name] for name in CHUNK_FIELDS}
    return Chunk(**values | {"headings": tuple(values["headings"])})


def vectors_of(entity: Mapping[str, Any], dimension: int) -> NDArray[uint16]:
    """The vectors that a row holds: (1 + m, d). Raises ValueError: not whole."""
    import numpy as np

    rows: NDArray[uint16] = np.frombuffer(b64decode("".join(entity["rows"])), "<u2")
    return rows.reshape(-1, dimension)


# --- words -----------------------------------------------------------------------------------


def _weights(bag: Sequence[str], mean_words: float) -> dict[int, float]:
    """The part of BM25 that does not depend on how frequent words are elsewhere."""
    found: dict[int, float] = {}
    for word, n in Counter(bag).items():
        weight = n / (n + _K1 * (1 - _B + _B * len(bag) / mean_words))
        found[_dimension(word)] = found.get(_dimension(word), 0.0) + weight
    return found or {_NO_WORD: 1.0}


def query_weights(
    asked: Sequence[str], frequency: Mapping[str, int], chunks: int
) -> dict[int, float]:
    """What the words of a query count for: their product with a row's is its lexical share.

    `frequency` tells in how many of the `chunks` each word is; unknown ones lower the share.
    """
    weights: dict[int, float] = {}
    total = 0.0
    for word in asked:
        known = frequency.get(word, 0)
        idf = math.log1p((chunks - known + 0.5) / (known + 0.5))
        total += idf
        if known:
            weights[_dimension(word)] = weights.get(_dimension(word), 0.0) + idf
    return {dimension: weight / total for dimension, weight in weights.items()}


def share(entity: Mapping[str, Any], weights: Mapping[int, float]) -> float:
    """The share of a query that a row holds, from 0 to 1."""
    held: Mapping[int, float] = entity["words"]
    return sum(weight * held.get(dimension, 0.0) for dimension, weight in weights.items())


def _dimension(word: str) -> int:
    # Two words of a million share one about once in four thousand: BM25 hardly notices.
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % (
        _DIMENSIONS
    )
