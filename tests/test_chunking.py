from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbot.chunking import chunk
from ragbot.types import Chunk, Document, Paragraph


def document(*paragraphs: str, headings: tuple[str, ...] = ()) -> Document:
    text, places = "", []
    for number, paragraph in enumerate(paragraphs, start=1):
        places.append(Paragraph(number, len(text), len(text) + len(paragraph), headings))
        text += paragraph + "\n"
    return Document("d.txt", "d", text, tuple(places))


def solid(text: str) -> int:
    """A count to which white space adds nothing, as it adds nothing to a tokenizer's."""
    return len("".join(text.split()))


def chunks(*paragraphs: str, limit: int = 20, headings: tuple[str, ...] = ()) -> list[Chunk]:
    return chunk(document(*paragraphs, headings=headings), limit=limit, count=len)


def test_a_paragraph_that_fits_is_one_chunk() -> None:
    assert [(c.paragraph, c.text) for c in chunks("甲。", "乙。丙。")] == [
        (1, "甲。"),
        (2, "乙。丙。"),
    ]


def test_a_long_one_is_split_at_sentence_ends_into_even_parts() -> None:
    made = chunks("一二三四五六七。" * 6)
    assert [len(c.text) for c in made] == [16, 16, 16]
    assert all(c.text.endswith("。") for c in made)


def test_a_long_sentence_is_split_at_clauses_then_spaces_then_anywhere() -> None:
    assert [c.text for c in chunks("一二三四五六七八九十，甲乙丙丁戊己庚辛壬癸")] == [
        "一二三四五六七八九十，",
        "甲乙丙丁戊己庚辛壬癸",
    ]
    assert all(not c.text.startswith("o") for c in chunks("two " * 20))
    assert max(len(c.text) for c in chunks("字" * 100)) <= 20


def test_headings_are_part_of_the_passage_and_of_its_length() -> None:
    made = chunks("一二三四五。六七八九十。", limit=14, headings=("節名",))
    assert all(len(c.passage) <= 14 and c.headings == ("節名",) for c in made)
    assert made[0].passage.startswith("節名\n")


def test_a_heading_path_too_long_loses_its_outer_part() -> None:
    made = chunks("一二三。", limit=16, headings=("很長很長很長的書名", "節名"))
    assert made[0].headings == ("節名",)


@given(
    st.lists(st.text(min_size=1).map(lambda t: t.replace("\n", " ")), max_size=5),
    st.integers(min_value=1, max_value=50),
)
def test_chunks_are_slices_that_lose_only_white_space(texts: list[str], limit: int) -> None:
    source = document(*texts)
    made = chunk(source, limit=limit, count=solid)
    assert all(source.text[c.start : c.end] == c.text for c in made)
    assert all(a.end <= b.start for a, b in pairwise(made))
    assert all(c.text.strip() for c in made)
    assert all(solid(c.text) <= limit for c in made)
    kept = "".join("".join(c.text for c in made).split())
    assert kept == "".join("".join(texts).split())


@pytest.mark.parametrize("piece", ["字", "word ", "a,b;"])
def test_a_megabyte_without_a_full_stop_is_split_in_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    made = chunks(text, limit=500)
    assert sum(len("".join(c.text.split())) for c in made) == len("".join(text.split()))
