"""The chunks and documents of a generation on Milvus, read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

from ragbot.milvus.client import damaged
from ragbot.milvus.generation import DOCUMENT, NAMES, Generation
from ragbot.milvus.rows import CHUNK_FIELDS, chunk_of
from ragbot.records import Named, document_from
from ragbot.types import Chunk, Document

_PAGE = 500
_KEPT = 32  # documents that are held once read


def pages(
    generation: Generation, numbers: Sequence[int], fields: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """The rows of some numbers, in the order of these, a page at a time."""
    for first in range(0, len(numbers), _PAGE):
        page = numbers[first : first + _PAGE]
        if isinstance(page, range) and page.step == 1:
            condition = f"number >= {page.start} and number < {page.stop}"
        else:
            condition = f"number in {list(page)}"
        rows = {int(row["number"]): row for row in generation.query(condition, fields)}
        if len(rows) != len(page):
            raise damaged(generation.place, f"it lacks {len(page) - len(rows)} chunks")
        yield from (rows[number] for number in page)


class StoredChunks(Sequence[Chunk]):
    """The chunks of a generation that have certain numbers, in the order of these."""

    def __init__(self, generation: Generation, numbers: Sequence[int]):
        self._generation, self._numbers = generation, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Chunk]:
        return map(chunk_of, pages(self._generation, self._numbers, CHUNK_FIELDS))

    @overload
    def __getitem__(self, at: int) -> Chunk: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Chunk, ...]: ...
    def __getitem__(self, at: int | slice) -> Chunk | tuple[Chunk, ...]:
        numbers = self._numbers[at]
        if isinstance(numbers, int):
            return self._read([numbers])[0]
        return self._read(numbers)

    def _read(self, numbers: Sequence[int]) -> tuple[Chunk, ...]:
        return tuple(map(chunk_of, pages(self._generation, numbers, CHUNK_FIELDS)))


class StoredDocuments(Named):
    """The documents of a generation."""

    def __init__(self, generation: Generation):
        self._generation = generation
        self._kept = lru_cache(_KEPT)(self._read)

    @cached_property
    def _names(self) -> Mapping[str, None]:
        return dict.fromkeys(json.loads(self._generation.text(NAMES)))

    def _document(self, name: str) -> Document:
        return self._kept(name)

    def _read(self, name: str) -> Document:
        try:
            return document_from(json.loads(self._generation.text(DOCUMENT + name)))
        except (ValueError, TypeError, LookupError) as error:
            raise damaged(self._generation.place, error) from error
