"""What is read at once: the best sentences that there is room for, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ragbot.looks import Look, look_at, weight
from ragbot.types import Chunk, Hit, Language

LONG, SHORT, ENGLISH = "甲" * 300, "乙" * 50, "English words. " * 10


def passage(rank: int, text: str, *headings: str) -> Hit:
    return Hit(rank, 1 - rank / 100, Chunk("a.txt", rank, 0, len(text), text, headings))


def sentence(hit: Hit, text: str) -> Hit:
    start = hit.text.index(text)
    chunk = Chunk("a.txt", hit.paragraph, start, start + len(text), text, hit.chunk.headings)
    return Hit(hit.rank, hit.score, chunk)


def taken(ranked: Sequence[Hit], hits: Sequence[Hit], asked: Language = "zh-Hant") -> Look:
    look = look_at(hits, ranked, asked)
    assert look is not None
    return look


@pytest.mark.parametrize(
    ("texts", "asked", "expected"),
    [
        ([SHORT] * 3, "zh-Hant", [1, 2, 3]),
        ([SHORT] * 5, "zh-Hans", [1, 2, 3]),
        ([LONG, SHORT], "zh-Hant", [1]),  # the first one is read, however long
        ([SHORT, LONG, SHORT], "zh-Hant", [1, 3]),  # what fits still goes with the best
        ([SHORT, ENGLISH, SHORT], "zh-Hant", [1, 3]),  # one language
        ([ENGLISH, SHORT, SHORT], "en", [1]),
        ([SHORT] * 3, "en", [1]),  # less of another language
        ([ENGLISH] * 3, "en", [1, 2, 3]),
        (["華為軍團。", "华为军团。"], "zh-Hans", [1, 2]),  # the scripts are one
    ],
)
def test_the_best_sentences_are_read(
    texts: Sequence[str], asked: Language, expected: list[int]
) -> None:
    hits = [passage(rank, text) for rank, text in enumerate(texts, start=1)]
    look = taken(hits, hits, asked)
    assert [hit.paragraph for hit in look.passages] == expected
    assert len(look.texts) == len(look.passages)


def test_where_nothing_was_found_there_is_nothing_to_read() -> None:
    assert look_at([], [], "en") is None


def test_sentences_of_a_passage_are_read_in_its_order_under_its_headings() -> None:
    first = passage(1, "甲一。甲二。甲三。", "書", "章")
    second = passage(2, "Second one. And two.")
    third = passage(3, "丁一。丁二。")
    ranked = [
        sentence(third, "丁二。"),
        sentence(first, "甲三。"),
        sentence(second, "And two."),
        sentence(first, "甲一。"),
    ]
    look = taken(ranked, [first, second, third])
    assert look.passages == [third, first]
    assert look.texts == ["丁二。", "書\n章\n甲一。甲三。"]


def test_english_sentences_are_parted_by_spaces() -> None:
    hit = passage(1, "Second one. And two.")
    look = taken([sentence(hit, "And two."), sentence(hit, "Second one.")], [hit], "en")
    assert look.texts == ["Second one. And two."]


@pytest.mark.parametrize(
    ("text", "least", "most"), [("", 0, 0), ("甲" * 10, 5, 15), ("English words " * 5, 10, 30)]
)
def test_a_texts_weight_is_about_its_tokens(text: str, least: float, most: float) -> None:
    assert least <= weight(text) <= most
