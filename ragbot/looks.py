"""What a generator reads at once: little, for a small model reads little well, and each token takes
time.

A corpus of an article's size is read ahead of all questions, in runs of neighbouring passages; what
has been read is kept, and an answer then starts from there. Of a larger one the passages are read
when they are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from ragbot.text import across, detect_language
from ragbot.types import Chunk, Hit

ROOM = 200.0  # tokens, about, of a look; a single passage may be longer
MOST = 2  # looks: of 67 answers two came from later ones, and seven wrong ones
# Tokens, about, of a corpus: more would take minutes to read, and a gigabyte to keep.
_AHEAD = 6_000.0


class Runs:
    """The passages of a corpus as they are read ahead, each run in one language; none of a corpus
    that is large."""

    def __init__(self, chunks: Sequence[Chunk]):
        self._chunks = chunks

    @cached_property
    def all(self) -> Sequence[Sequence[Chunk]]:
        """Each run's passages, in order."""
        runs: list[list[Chunk]] = []
        total = free = 0.0
        for chunk in self._chunks:
            taken = weight(chunk.passage)
            total += taken
            if total > _AHEAD:
                return ()
            if taken > free or _apart(runs[-1][-1], chunk):
                runs.append([])
                free = ROOM
            runs[-1].append(chunk)
            free -= taken
        return runs

    def of(self, hit: Hit) -> Sequence[Chunk]:
        """The run that holds a passage; empty when none does."""
        return self._run.get((hit.doc, hit.start), ())

    @cached_property
    def _run(self) -> Mapping[tuple[str, int], Sequence[Chunk]]:
        return {(chunk.doc, chunk.start): run for run in self.all for chunk in run}


def looks(hits: Sequence[Hit], runs: Runs) -> Iterator[Sequence[Hit]]:
    """The passages in the order in which they are read, the best of each look first: those of a run
    together, others as many as fit."""
    left = list(hits)
    for _ in range(MOST):
        if not left:
            return
        run = runs.of(left[0])
        look = _neighbours(left[0], run) if run else _fitting(left)
        seen = {(hit.doc, hit.start) for hit in look}
        left = [hit for hit in left if (hit.doc, hit.start) not in seen]
        yield look


def weight(text: str) -> float:
    """About how many tokens a text has: a bound for no model, near enough to plan by."""
    return sum(0.9 if ord(char) > 0x2E7F else 0.3 for char in text)


def _neighbours(best: Hit, run: Sequence[Chunk]) -> list[Hit]:
    return [best, *(replace(best, chunk=chunk) for chunk in run if chunk != best.chunk)]


def _fitting(hits: Sequence[Hit]) -> list[Hit]:
    """The best passage, and the next ones in its language as long as there is room."""
    look, free = [hits[0]], ROOM - weight(hits[0].text)
    language = detect_language(hits[0].text)
    for hit in hits[1:]:
        taken = weight(hit.text)
        if taken <= free and not across(detect_language(hit.text), language):
            look.append(hit)
            free -= taken
    return look


def _apart(one: Chunk, other: Chunk) -> bool:
    return one.doc != other.doc or across(detect_language(one.text), detect_language(other.text))
