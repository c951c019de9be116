"""What is read at once: looks of what was found, and runs of a small corpus."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ragbot.looks import ROOM, Runs, looks, weight
from ragbot.types import Chunk, Hit

LONG, SHORT, ENGLISH = "甲" * 300, "乙" * 60, "English words. " * 15


def chunks(*texts: str, doc: str = "a.txt") -> list[Chunk]:
    return [Chunk(doc, n, 1000 * n, 1000 * n + len(text), text) for n, text in enumerate(texts, 1)]


def hits(passages: Sequence[Chunk]) -> list[Hit]:
    return [Hit(rank, 1 - rank / 100, chunk) for rank, chunk in enumerate(passages, start=1)]


def read(found: Sequence[Hit], runs: Runs) -> list[list[int]]:
    return [[hit.paragraph for hit in look] for look in looks(found, runs)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([SHORT] * 3, [[1, 2, 3]]),
        ([SHORT] * 6, [[1, 2, 3], [4, 5, 6]]),
        ([SHORT] * 9, [[1, 2, 3], [4, 5, 6]]),  # no third look
        ([LONG, SHORT], [[1], [2]]),  # the first one is read, however long
        ([LONG, LONG, SHORT], [[1], [2]]),
        ([SHORT, LONG, SHORT], [[1, 3], [2]]),  # what fits still goes with the best
        ([SHORT, ENGLISH, SHORT], [[1, 3], [2]]),  # one language at a time
        ([ENGLISH, SHORT, SHORT], [[1], [2, 3]]),
        (["華為軍團。", "华为军团。"], [[1, 2]]),  # the scripts are one
        ([], []),
    ],
)
def test_of_a_large_corpus_what_ranks_first_is_read(
    texts: Sequence[str], expected: list[list[int]]
) -> None:
    assert read(hits(chunks(*texts)), Runs([])) == expected


def test_of_a_small_corpus_a_passage_is_read_with_its_neighbours() -> None:
    passages = chunks(*[SHORT] * 8)
    runs = Runs(passages)
    found = hits([passages[4], passages[1], passages[3], passages[7]])
    assert [[chunk.paragraph for chunk in run] for run in runs.all] == [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8],
    ]
    assert read(found, runs) == [[5, 4, 6], [2, 1, 3]]  # the best one first


def test_a_run_keeps_to_one_document_one_language_and_its_room() -> None:
    passages = [
        *chunks(SHORT, SHORT, ENGLISH, ENGLISH, LONG, SHORT),
        *chunks(SHORT, "华为军团。", "華為軍團。", doc="b.txt"),
    ]
    runs = Runs(passages).all
    assert [chunk for run in runs for chunk in run] == passages
    assert [[(chunk.doc[0], chunk.paragraph) for chunk in run] for run in runs] == [
        [("a", 1), ("a", 2)],
        [("a", 3), ("a", 4)],
        [("a", 5)],
        [("a", 6)],
        [("b", 1), ("b", 2), ("b", 3)],
    ]
    for run in runs:
        assert len(run) == 1 or sum(weight(chunk.passage) for chunk in run) <= ROOM


def test_a_large_corpus_has_no_runs() -> None:
    passages = chunks(*[LONG] * 40)
    runs = Runs(passages)
    assert runs.all == () and runs.of(hits(passages)[0]) == ()
    assert Runs([]).all == []


def test_what_is_in_no_run_is_read_as_it_ranks() -> None:
    """As of a document of one's own beside a small corpus."""
    runs = Runs(chunks(SHORT))
    assert read(hits(chunks(SHORT, SHORT, doc="other.txt")), runs) == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "least", "most"), [("", 0, 0), ("甲" * 10, 5, 15), ("English words " * 5, 10, 30)]
)
def test_a_texts_weight_is_about_its_tokens(text: str, least: float, most: float) -> None:
    assert least <= weight(text) <= most
