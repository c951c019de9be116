"""BM25 over words: which share of what a query asks for does each passage hold, word for word?

Scores are BM25 (Robertson and Zaragoza 2009, Lucene's variant) divided by the most that the query
could score, the sum of its words' idf, unknown words included. So they lie in [0, 1), mean the
same for short and long queries, and are 0 where nothing is shared: nothing to standardise, and no
noise to add to the dense scores when a query is in another language than the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragbot.words import words

if TYPE_CHECKING:
    from bm25s import BM25
    from numpy import float32
    from numpy.typing import NDArray


class Lexical:
    """A BM25 index of n passages; `None` inside where no passage has a word in it."""

    def __init__(self, bm25: BM25 | None, size: int):
        self._bm25 = bm25
        self._size = size

    @classmethod
    def build(cls, passages: Sequence[str]) -> Lexical:
        """Index the passages; their order gives the ids."""
        import bm25s

        bags = [words(passage) for passage in passages]
        if not any(bags):  # bm25s cannot index nothing
            return cls(None, len(bags))
        bm25 = bm25s.BM25(method="lucene")
        bm25.index(bags, show_progress=False)
        return cls(bm25, len(bags))

    @classmethod
    def load(cls, folder: Path, size: int) -> Lexical:
        """Read what `save` wrote. Raises OSError or ValueError when it is not whole."""
        import bm25s

        if not (folder / "vocab.index.json").exists():
            return cls(None, size)
        return cls(bm25s.BM25.load(folder, show_progress=False), size)

    def save(self, folder: Path) -> None:
        """Write the index into `folder`, which is made."""
        folder.mkdir(parents=True)
        if self._bm25 is not None:
            self._bm25.save(folder, show_progress=False)

    def scores(self, query: str) -> NDArray[float32]:
        """The share of the query's weight that each passage holds: (n,) float32 in [0, 1)."""
        import numpy as np

        asked = words(query)
        known = [word for word in asked if self._bm25 and word in self._bm25.vocab_dict]
        if self._bm25 is None or not known:
            return np.zeros(self._size, dtype=np.float32)
        held = np.diff(
            self._bm25.scores["indptr"]
        )  # passages that hold each word of the vocabulary
        frequency = np.array(
            [held[self._bm25.vocab_dict[word]] if word in known else 0 for word in asked]
        )
        idf = np.log1p((self._size - frequency + 0.5) / (frequency + 0.5))
        share: NDArray[float32] = (self._bm25.get_scores(known) / idf.sum()).astype(np.float32)
        return share
