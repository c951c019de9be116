"""Question in, ranked passages out: dense and lexical scores joined so that neither hurts.

The result depends on the arguments and the index alone. Of several phrasings of a question, such
as its translation, the best score of a passage counts. `rerank` is the seam for a cross-encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ragbot.dense import products
from ragbot.encoder import Encoder
from ragbot.evidence import content_words, coverage
from ragbot.index import Candidate, Index
from ragbot.text import asks, fold, is_english, sentences
from ragbot.types import Chunk, Hit, Rerank

# The score is the mean of two cosines (the passage's and its best sentence's) plus this much of
# the lexical share. All parts are absolute, so a query that shares no word with the corpus ranks
# exactly as dense alone; standardised or rank-based fusion turns its zeros into noise (recall@1
# 0.82 -> 0.33 on English questions over Chinese). Chosen on a coarse grid; 0.05 to 0.3 are alike.
LEXICAL_WEIGHT = 0.1

# What the share of the question's words that a sentence holds adds to its rank, of Chinese ones by
# their characters, too: a paraphrase shares those, which BM25 over some sentences does not see.
WORDS_WEIGHT = 0.1

# What a Chinese text scores above an English one that bears on a question as well, each measured by
# a query in its own language. Where both are in one corpus, the Chinese crowd the English out
# otherwise (recall@5 of Chinese questions over English passages 0.75 instead of 0.96).
CHINESE_LEAD = 0.04

# What a passage that has nothing to do with the question scores, about; a verbatim one has 1.1.
UNRELATED = 0.8
NEAR = UNRELATED + 0.05  # the score from which on a Chinese passage has to do with a question

_CANDIDATES = 50


class Retriever:
    """Finds the passages of `index` that bear on a question."""

    def __init__(self, index: Index, encoder: Encoder, *, rerank: Rerank | None = None):
        self.index = index
        self.encoder = encoder
        self._rerank = rerank

    def then(self, rerank: Rerank) -> Retriever:
        """The same search, with `rerank` as the last to order what it finds."""
        first = self._rerank

        def both(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
            return rerank(question, first(question, hits) if first else hits)

        return Retriever(self.index, self.encoder, rerank=both)

    def over(self, index: Index) -> Retriever:
        """The same search of another index, which the same encoder made."""
        return Retriever(index, self.encoder, rerank=self._rerank)

    def search(self, question: str, *, limit: int, phrasings: Sequence[str] = ()) -> list[Hit]:
        """The best `limit` passages or fewer, best first; equal scores keep the corpus's order."""
        queries = [question, *phrasings]
        scores: dict[int, float] = {}
        chunks: dict[int, Chunk] = {}
        for query, vector in zip(queries, self.encoder.queries(queries), strict=True):
            for found in self.index.search(vector, query, limit=max(limit, _CANDIDATES)):
                scores[found.id] = max(fused(found), scores.get(found.id, -1.0))
                chunks[found.id] = found.chunk
        ahead = {id: _lead(chunks[id].text, queries) for id in scores}
        ranked = sorted(scores, key=lambda id: (ahead[id] - scores[id], id))
        hits = [Hit(rank, scores[id], chunks[id]) for rank, id in enumerate(ranked, start=1)]
        if self._rerank:
            hits = list(self._rerank(question, hits[: max(limit, _CANDIDATES)]))
        return hits[:limit]

    def ranked(self, queries: Sequence[str], hits: Sequence[Hit]) -> list[Hit]:
        """The sentences of the hits as hits of their own, of the same rank, best first. One that
        asks goes with the next one, which may answer it."""
        import numpy as np

        vectors = self.encoder.queries(queries)
        parts: list[Hit] = []
        scores: list[float] = []
        for hit in hits:
            rows = self.index.sentences_of(hit.chunk)
            cosines = np.max([products(rows, vector) for vector in vectors], axis=0)
            for first, last, span in _answering(hit.text):
                parts.append(self._slice(hit, *span))
                scores.append(hit.score + float(cosines[first : last + 1].max()))
        asked = [content_words(query) for query in queries]
        total = [
            score + WORDS_WEIGHT * max(coverage(content, fold(part.text).text) for content in asked)
            for part, score in zip(parts, scores, strict=True)
        ]
        # Both parts of the score have the lead: the passage's and the sentence's own.
        ahead = [2 * _lead(part.text, queries) for part in parts]
        best = sorted(range(len(parts)), key=lambda n: ahead[n] - total[n])
        return [replace(parts[n], score=total[n]) for n in best]

    @staticmethod
    def _slice(hit: Hit, start: int, end: int) -> Hit:
        chunk = replace(
            hit.chunk, start=hit.start + start, end=hit.start + end, text=hit.text[start:end]
        )
        return replace(hit, chunk=chunk)


def is_near(hit: Hit) -> bool:
    """Whether a passage that was found has to do with the question, by its score."""
    return hit.score >= NEAR - (CHINESE_LEAD if is_english(hit.text) else 0.0)


def _lead(text: str, queries: Sequence[str]) -> float:
    """What a text is ahead by because of its language. Asked in one language only, texts in the
    other one are behind by far more, whichever it is."""
    return CHINESE_LEAD if len(queries) > 1 and not is_english(text) else 0.0


def _answering(text: str) -> list[tuple[int, int, tuple[int, int]]]:
    """The runs of sentences that end with one that asks nothing: the numbers of the first and the
    last, and from where to where they go. A text that only asks is one."""
    runs, begun = [], 0
    spans = sentences(text)
    for number, (start, end) in enumerate(spans):
        if not asks(text[start:end]):
            runs.append((begun, number, (spans[begun][0], end)))
            begun = number + 1
    if spans and not runs:
        runs.append((0, len(spans) - 1, (spans[0][0], spans[-1][1])))
    return runs


def fused(candidate: Candidate) -> float:
    """One score from the three: from UNRELATED or so to 1.1, 0.9 and more for a good passage."""
    dense = (candidate.passage + candidate.sentence) / 2
    return dense + LEXICAL_WEIGHT * candidate.lexical
