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
    from numpy import float32, int64
    from numpy.typing import NDArray


class Lexical:
    """A BM25 index of n passages; `None` inside where no passage has a word in it."""

    def __init__(self, bm25: BM25 | None, size: int):
        self._bm25 = bm25
        self._size = size

    @classmethod
    def build(cls, passages: Sequence[str]) -> Lexical:
        """Index the passages; their order gives the ids."""
        return cls.of_words([words(passage) for passage in passages])

    @classmethod
    def of_words(cls, bags: Sequence[Sequence[str]]) -> Lexical:
        """Index passages of which the words are known."""
        import bm25s

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
        return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False), size)

    def save(self, folder: Path) -> None:
        """Write the index into `folder`, which is made."""
        folder.mkdir(parents=True)
        if self._bm25 is not None:
            self._bm25.save(folder, show_progress=False)

    def scores(self, query: str) -> NDArray[float32]:
        """The share of the query's weight that each passage holds: (n,) float32 in [0, 1)."""
        import numpy as np

        shares = np.zeros(self._size, dtype=np.float32)
        asked = words(query)
        vocabulary = self._bm25.vocab_dict if self._bm25 else {}
        known = [vocabulary[word] for word in asked if word in vocabulary]
        if self._bm25 is None or not known:
            return shares
        data, passages, begins = (self._bm25.scores[x] for x in ("data", "indices", "indptr"))
        for word in known:
            part = slice(begins[word], begins[word + 1])
            shares[passages[part]] += data[part]  # a word names a passage once
        frequency = np.zeros(len(asked))  # how many passages hold each word
        frequency[: len(known)] = [begins[word + 1] - begins[word] for word in known]
        shares /= np.log1p((self._size - frequency + 0.5) / (frequency + 0.5)).sum()
        return shares

    def best(
        self, query: str, limit: int, among: NDArray[int64] | None = None
    ) -> tuple[NDArray[int64], NDArray[float32]]:
        """The `limit` passages that hold most of a query, without those that hold nothing of it,
        by their ids; and the shares of all. `among` are the ids of the only ones to choose from."""
        import numpy as np

        shares = self.scores(query)
        held = np.flatnonzero(shares) if among is None else among[shares[among] > 0]
        if len(held) > limit:
            least = np.partition(shares[held], -limit)[-limit]
            held = held[shares[held] >= least]
            held = held[np.argsort(-shares[held], kind="stable")[:limit]]
        return np.sort(held), shares
