"""The engines that keep an index, behind one face: where it lies, what it is, how it is made.

This is the only place that knows them all; what is done with a store, the workspace knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ragbot import faiss_index, store
from ragbot.address import Milvus
from ragbot.encoder import Encoder
from ragbot.index import Index, Manifest, is_outdated
from ragbot.milvus.build import Desk, build_milvus
from ragbot.milvus.generation import SOURCE, kept_manifest, opened, stands
from ragbot.milvus.index import open_milvus
from ragbot.types import Chunk, Document, Progress


class IndexStore(Protocol):
    """The place of one index. Every method raises StoreError; on Milvus ConfigError, too, when its
    library is missing."""

    @property
    def folder(self) -> Path:
        """The folder of this machine that goes with the index: its journal, example questions."""
        ...

    def exists(self) -> bool:
        """Whether there is an index, in whatever state."""
        ...

    def manifest(self) -> Manifest:
        """What the index is, without opening it."""
        ...

    def outdated(self, encoder: Encoder) -> bool:
        """Whether an older ragbot made it, by the encoder that still has the name."""
        ...

    def open(self, encoder: Encoder) -> Index:
        """The index, made by that encoder."""
        ...

    def build(
        self,
        documents: Sequence[Document],
        chunks: Sequence[Chunk],
        encoder: Encoder,
        progress: Progress | None = None,
    ) -> Index:
        """Make an index of the chunks, and put it in place of the one that is there."""
        ...

    def source(self) -> Mapping[str, str] | None:
        """What was noted of the corpus it was made from."""
        ...

    def note_source(self, source: Mapping[str, str]) -> None:
        """Note what corpus it was made from."""
        ...


@dataclass(frozen=True, slots=True)
class FaissStore:
    """An index in a folder; see `IndexStore`."""

    folder: Path

    def exists(self) -> bool:
        return (self.folder / store.MANIFEST).exists()

    def manifest(self) -> Manifest:
        return faiss_index.read_manifest(self.folder)

    def outdated(self, encoder: Encoder) -> bool:
        return faiss_index.outdated(self.folder, encoder)

    def open(self, encoder: Encoder) -> Index:
        return faiss_index.open_index(self.folder, encoder.fingerprint)

    def build(
        self,
        documents: Sequence[Document],
        chunks: Sequence[Chunk],
        encoder: Encoder,
        progress: Progress | None = None,
    ) -> Index:
        return faiss_index.build_index(self.folder, documents, chunks, encoder, progress)

    def source(self) -> Mapping[str, str] | None:
        try:
            return _source((self.folder / _SOURCE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def note_source(self, source: Mapping[str, str]) -> None:
        store.replace_file(self.folder / _SOURCE, json.dumps(source))


@dataclass(frozen=True, slots=True)
class MilvusStore:
    """An index on Milvus; see `IndexStore`. `folder` is the writers' on this machine."""

    place: Milvus
    folder: Path

    def exists(self) -> bool:
        return stands(self.place)

    def manifest(self) -> Manifest:
        return Manifest.read(kept_manifest(opened(self.place)), self.place)

    def outdated(self, encoder: Encoder) -> bool:
        return is_outdated(kept_manifest(opened(self.place)), encoder)

    def open(self, encoder: Encoder) -> Index:
        self.folder.mkdir(parents=True, exist_ok=True)
        return open_milvus(self.place, encoder.fingerprint)

    def build(
        self,
        documents: Sequence[Document],
        chunks: Sequence[Chunk],
        encoder: Encoder,
        progress: Progress | None = None,
    ) -> Index:
        return build_milvus(Desk(self.place, self.folder), documents, chunks, encoder, progress)

    def source(self) -> Mapping[str, str] | None:
        if not self.exists():
            return None
        return _source(opened(self.place).facts.take([SOURCE]).get(SOURCE, ""))

    def note_source(self, source: Mapping[str, str]) -> None:
        opened(self.place).facts.put({SOURCE: json.dumps(source)})


_SOURCE = "source.json"


def _source(text: str) -> Mapping[str, str] | None:
    try:
        fields: dict[str, str] = json.loads(text)
        return {"corpus": fields["corpus"], "files": fields["files"]}
    except (ValueError, KeyError, TypeError):
        return None  # made by hand or by an older version: the corpus is then read again
