"""Things named one by one: followed from the first to the last, or not told at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ragbot.bot import RagBot
from ragbot.enumeration import Asked, enumerated
from ragbot.index import Index
from ragbot.types import Hit
from tests.fakes import FakeEngine, reading

SWORDS = (
    "業界有兩把劍。\n頭一把劍叫「結盟」。各家一起出力。\n第二把劍叫「聚焦」。例子不少。\n天氣很好。"
)
WALLS = "There are three walls.\nThe first wall is trust. It is high.\nThe second wall is skill.\nThe third wall is money."


@pytest.mark.parametrize(
    ("text", "best", "asked", "named"),
    [
        (SWORDS, 1, Asked(2), ["頭一把劍叫「結盟」。", "第二把劍叫「聚焦」。"]),
        (SWORDS, 0, Asked(2), ["頭一把劍叫「結盟」。", "第二把劍叫「聚焦」。"]),  # what announces them
        (SWORDS, 0, Asked(2, "把"), ["頭一把劍叫「結盟」。", "第二把劍叫「聚焦」。"]),
        (SWORDS, 0, Asked(2, "家"), []),  # two companies were asked for
        ("首先是錢。\n其次是人。", 0, Asked(2, "道"), ["首先是錢。", "其次是人。"]),  # of anything
        (SWORDS, 2, Asked(3), []),  # three were asked for
        (WALLS, 3, Asked(3), ["The first wall is trust.", "The second wall is skill.", "The third wall is money."]),
        (WALLS, 3, Asked(2), []),  # there is a third
        ("首先是錢。\n其次是人。", 0, Asked(2), ["首先是錢。", "其次是人。"]),
        ("第一道是牆。\n第二把是劍。", 0, Asked(2), []),  # not of the same kind
        ("第二道是牆。\n第一道是門。", 0, Asked(2), []),  # not in order
        ("今年第一個季度很好。\n第二個季度更好。", 0, Asked(2), []),  # the first does not open its sentence
        ("山很高。\n水很長。\n第一是錢。\n第二是人。", 0, Asked(2), []),  # far from the best passage
        ("沒有次序。", 0, Asked(2), []),
        ("", 0, Asked(2), []),
    ],
)  # fmt: skip
def test_ordinals_that_open_sentences_are_followed(
    make_index: Callable[..., Index],
    text: str,
    best: int,
    asked: Asked,
    named: list[str],
) -> None:
    chunks = make_index(text or "。").chunks
    hit = Hit(1, 0.9, chunks[best])
    assert [piece.text for piece in enumerated(asked, hit, chunks)] == named


def test_another_documents_are_none_of_them(make_index: Callable[..., Index]) -> None:
    chunks = make_index("第一道是牆。", "第二道是門。").chunks
    assert enumerated(Asked(2), Hit(1, 0.9, chunks[0]), chunks) == []


def test_each_thing_asked_for_is_told_and_cited_even_where_the_model_names_one(
    make_bot: Callable[..., RagBot], engine: FakeEngine
) -> None:
    engine.enqueue(reading("第二把劍叫「聚焦」。", "第二把剑叫聚焦。"))
    answer = make_bot(SWORDS, top_k=1).ask("兩把劍各叫什麼？")
    assert answer.answer == "頭一把劍叫「結盟」。[1]第二把劍叫「聚焦」。[2]"
    assert [one.paragraph for one in answer.citations] == [2, 3]
