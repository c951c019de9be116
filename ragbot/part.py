"""An index seen through some of its documents, whatever engine keeps it.

Which chunks are theirs is found out once; how a search is kept to them is the engine's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ragbot.index import Candidate, Index, languages_of
from ragbot.records import Named
from ragbot.types import Chunk, Document, Language

if TYPE_CHECKING:
    from numpy import float32, int64
    from numpy.typing import NDArray


class Whole(Index, Protocol):
    """What an engine's index can do besides, for its parts."""

    def find(
        self, vector: NDArray[float32], query: str, limit: int, among: Part | None
    ) -> list[Candidate]:
        """What `search` finds, among some documents alone if any are given."""
        ...

    def numbers(self, names: frozenset[str]) -> NDArray[int64]:
        """The numbers (m,) of those documents' chunks, in order."""
        ...

    def number(self, chunk: Chunk) -> int:
        """The number of a chunk. Raises KeyError: it is none of this index."""
        ...

    def some(self, numbers: Sequence[int]) -> Sequence[Chunk]:
        """The chunks of those numbers."""
        ...


class Part:
    """Some documents of an index; see `ragbot.index.Index`. Its manifest is the whole's."""

    def __init__(self, whole: Whole, names: frozenset[str]):
        self.manifest = whole.manifest
        self.documents: Mapping[str, Document] = _Some(whole.documents, names)
        self.names = names
        self._whole = whole

    @cached_property
    def numbers(self) -> NDArray[int64]:
        """The numbers (m,) of its chunks in the whole, in order."""
        return self._whole.numbers(self.names)

    @cached_property
    def chunks(self) -> Sequence[Chunk]:
        return self._whole.some(self.numbers.tolist())

    def search(self, vector: NDArray[float32], query: str, *, limit: int) -> list[Candidate]:
        return self._whole.find(vector, query, limit, self) if self.documents else []

    @cached_property
    def languages(self) -> frozenset[Language]:
        return languages_of(self.chunks)

    def around(self, chunk: Chunk, most: int) -> Sequence[Chunk]:
        self._require(chunk)
        at = int(self.numbers.searchsorted(self._whole.number(chunk)))
        return self.chunks[max(0, at - most) : at + most + 1]

    def sentences_of(self, chunk: Chunk) -> NDArray[float32]:
        self._require(chunk)
        return self._whole.sentences_of(chunk)

    def _require(self, chunk: Chunk) -> None:
        if chunk.doc not in self.documents:
            raise KeyError(chunk)

    def within(self, names: Collection[str]) -> Index:
        return self._whole.within(self.names.intersection(names))

    def current(self) -> Index:
        whole = self._whole.current()
        return self if whole is self._whole else whole.within(self.names)


class _Some(Named):
    """Some of the documents, in the order of all."""

    def __init__(self, documents: Mapping[str, Document], names: frozenset[str]):
        self._documents = documents
        self._chosen = {name: None for name in documents if name in names}

    @property
    def _names(self) -> Mapping[str, object]:
        return self._chosen

    def _document(self, name: str) -> Document:
        return self._documents[name]
