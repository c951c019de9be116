from __future__ import annotations

from collections.abc import Sequence

import pytest

from ragbot.evidence import Evidence, cited, content_words, copied, coverage, denies, gather, rivals
from ragbot.text import fold
from ragbot.types import Citation
from tests.test_citations import ENGLISH, SOURCE_1, SOURCE_2, hits

CORPS = "華為3月對外宣告組建醫療衛生軍團，概念股飆升。"


def test_evidence_is_a_slice_of_the_document_in_order() -> None:
    document = "開頭。\n" + SOURCE_1 + "\n" + ENGLISH
    first, second = hits(SOURCE_1, ENGLISH)
    found = gather([first, second])
    assert [(piece.hit.rank, piece.text) for piece in found] == [
        (1, CORPS),
        (1, "自2023年開打的競賽更上一層樓。"),
        (2, "The Panthers defense gave up just 308 points."),
        (2, "Kuechly led the team with 118 tackles."),
    ]
    for piece in found:
        at = piece.hit.start
        start = document.index(piece.hit.text)
        assert document[start + piece.start - at : start + piece.end - at] == piece.text
    assert gather([]) == []


def test_evidence_compares_by_value_and_is_cited_with_its_place() -> None:
    hit = hits(SOURCE_1)[0]
    piece = Evidence(hit, 100, 100 + len(CORPS))
    assert piece == gather([hit])[0]
    assert cited(piece, 7) == Citation(7, "doc.txt", 1, 100, 100 + len(CORPS), CORPS)


# --- what was copied -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copy", "texts", "places", "share"),
    [
        (CORPS, [SOURCE_1, SOURCE_2], {0}, 1.0),
        ("华为3月对外宣告组建医疗卫生军团，概念股飙升。", [SOURCE_1, SOURCE_2], {0}, 1.0),
        (CORPS, [SOURCE_2, SOURCE_1], {1}, 1.0),
        ("華為3月對外宣告組建醫療衛生軍團", [SOURCE_1, SOURCE_2], {0}, 1.0),  # cut short
        ("ＡＩ算法做到８５％，多半就能發PAPER；", [SOURCE_1, SOURCE_2], {2}, 1.0),
        (SOURCE_1, [SOURCE_1, SOURCE_2], {0, 1}, 1.0),  # two sentences, in one piece or in two
        (SOURCE_1.replace("。自", "。\n自"), [SOURCE_1, SOURCE_2], {0, 1}, 0.95),
        ("Kuechly led the team with 118 tackles.", [ENGLISH], {1}, 1.0),
        ("Kuechly led the team with tackles.", [ENGLISH], {1}, 0.9),  # a word was left out
        ("華為2月對外宣告組建醫療衛生軍團，概念股飆升。", [SOURCE_1, SOURCE_2], {0}, 0.9),
        ("", [SOURCE_1], set(), 0.0),
        (CORPS, [], set(), 0.0),
        ("烤雞好吃。", [SOURCE_1, SOURCE_2], set(), 0.0),
    ],
)
def test_a_copy_is_found_again(
    copy: str, texts: Sequence[str], places: set[int], share: float
) -> None:
    found, where = copied(copy, gather(hits(*texts)))
    assert where == places
    assert share <= found <= min(1.0, share + 0.1)


@pytest.mark.parametrize(
    "copy",
    ["華為2月在深圳的總部對外說，會員一律免費。", "The team won 118 games in a single season."],
)
def test_of_what_was_made_up_little_is_found(copy: str) -> None:
    assert copied(copy, gather(hits(SOURCE_1, SOURCE_2, ENGLISH)))[0] < 0.6


def test_the_shorter_of_two_sentences_that_hold_a_copy_is_taken() -> None:
    texts = ["這家店的蘋果一斤五元，梨一斤六元，香蕉一斤七元，西瓜一斤八元。", "蘋果一斤五元。"]
    assert copied("蘋果一斤五元", gather(hits(*texts)))[1] == {1}


# --- numbers of the same measure -------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "source", "rival"),
    [
        ("做到85%就能落地。", "做到85%就能發paper，落地要95%、99%。", True),
        ("做到85%、95%和99%。", "做到85%就能發paper，落地要95%、99%。", False),
        ("它在2016年開放。", "它2016年建成，2019年開放。", True),
        ("它在２０１６年開放。", "它2016年開放，長430米。", False),  # other measures
        ("橋長430米。", "橋長430米，每次容800人。", False),
        ("共有84個壁壘。", "84個醫院和32個學校有壁壘。", True),  # the first character tells
        ("橋長1430米。", "橋長1,430米。", False),
        ("Loans last 3 weeks.", "Loans last 3 weeks, or 5 weeks for members.", True),
        ("Loans last 3 weeks.", "Loans last 3 weeks and cost 5 crowns.", False),
        ("It gave up 308 points.", ENGLISH, False),
        ("它很長。", "橋長430米，引道長20米。", False),  # no number, nothing to be wrong
        ("橋長430米。", "橋很長。", False),
        ("", "", False),
    ],
)
def test_a_source_with_other_numbers_of_the_same_measure_is_a_rival(
    claim: str, source: str, rival: bool
) -> None:
    assert rivals(claim, source) == rival


# --- words in common -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "source", "share"),
    [
        ("蘋果", "這家店的蘋果。", 1.0),
        ("苹果", "這家店的蘋果。", 1.0),
        ("蘋果", "這家店的梨。", 0.0),
        ("宣布", "華為宣告。", 0.25),  # by characters, at half
        ("apples", "An apple a day.", 1.0),
        ("walked", "They walk.", 1.0),
        ("apples pears", "An apple a day.", 0.5),
        ("的 了 and the", "anything", 1.0),
    ],
)
def test_coverage(claim: str, source: str, share: float) -> None:
    assert coverage(content_words(claim), fold(source).text) == share


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("湘雅沒有把它搬進來。", True),
        ("他并非医生", True),
        ("這不是他做的", True),
        ("It isn't known.", True),
        ("Nobody can; it was never tried", True),
        ("不同的醫院各有不少問題，不過很快", False),
        ("非常好，非洲也有", False),
        ("Nothing notable, a knot", False),
        ("", False),
    ],
)
def test_what_denies_is_told_from_words_that_look_like_it(text: str, denied: bool) -> None:
    assert denies(text) is denied
