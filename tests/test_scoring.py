"""One question, one answer, and the figures that must come of it: worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragbot.errors import ConfigError
from ragbot.evaluation.questions import Question
from ragbot.evaluation.records import Record
from ragbot.evaluation.retrieval import ranked_paragraphs, retrieval_figures
from ragbot.evaluation.scoring import Judges, Library, Outcome, Scorer
from ragbot.types import Answer, Chunk, Citation, Hit, Timings

TEXTS = {("d", n): f"第{n}段說：蘋果{n}元。" for n in range(1, 13)}
LIBRARY = Library(TEXTS, set(TEXTS) - {("d", 12)})  # paragraph 12 was never indexed


def question(**fields: Any) -> Question:
    return Question.model_validate(
        {
            "id": "q",
            "lang": "zh-Hant",
            "question": "多少錢？",
            "answerable": True,
            "gold_paragraphs": [1],
        }
        | fields
    )


def hits(*paragraphs: int) -> list[Hit]:
    return [
        Hit(rank, 1 - rank / 100, Chunk("d", n, 0, 9, TEXTS["d", n]))
        for rank, n in enumerate(paragraphs, start=1)
    ]


def answer(text: str, *cited: int, abstained: bool = False, quote: str = "") -> Answer:
    citations = tuple(
        Citation(marker, "d", n, 0, 9, quote or TEXTS["d", n])
        for marker, n in enumerate(cited, start=1)
    )
    return Answer("多少錢？", "zh-Hant", text, abstained, citations, (), Timings(1, 2, 3), 0.5)


def supports(claim: str, text: str) -> bool:
    return all(char in text for char in claim if char.isdigit())


SCORER = Scorer(LIBRARY, Judges(supports))


def record(asked: Question, found: list[Hit], said: Answer | None, top_k: int = 3) -> Record:
    asked = LIBRARY.place(asked)
    return SCORER.record(asked, Outcome(found, found[:top_k], said))


# --- retrieval -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "ranked", "figures"),
    [  # recall@1, @3, @5, @10, MRR
        ([1], [1, 2], (1, 1, 1, 1, 1)),
        ([1], [2, 1], (0, 1, 1, 1, 1 / 2)),
        ([1], [2, 3, 4, 1], (0, 0, 1, 1, 1 / 4)),
        ([1, 7], [2, 7, 1], (0, 1, 1, 1, 1 / 2)),  # two gold paragraphs: the first one found counts
        ([1], [], (0, 0, 0, 0, 0)),
        ([1], [2, 3], (0, 0, 0, 0, 0)),
    ],
)
def test_retrieval(gold: list[int], ranked: list[int], figures: tuple[float, ...]) -> None:
    places = [("d", n) for n in ranked]
    found = retrieval_figures([("d", n) for n in gold], places)
    names = ("recall@1", "recall@3", "recall@5", "recall@10", "mrr@10")
    assert tuple(found[name] for name in names) == pytest.approx(figures)


def test_ndcg_of_two_gold_paragraphs_by_hand() -> None:
    found = retrieval_figures([("d", 1), ("d", 3)], [("d", 2), ("d", 3), ("d", 1)])
    # gains at ranks 2 and 3 over the best possible, at 1 and 2
    assert found["ndcg@10"] == pytest.approx((0.63093 + 0.5) / (1 + 0.63093), abs=1e-4)


def test_a_paragraph_counts_once_by_its_best_chunk() -> None:
    assert list(ranked_paragraphs(hits(2, 2, 1))) == [("d", 2), ("d", 1)]
    assert ranked_paragraphs(hits(2, 2, 1))["d", 2] == 0.99


# --- answers ---------------------------------------------------------------------------------


def test_a_right_answer_that_cites_gold() -> None:
    got = record(
        question(must_include=[["1元", "一元"]]), hits(1, 2, 3), answer("蘋果一元。[1]", 1)
    )
    assert got.right is True
    assert got.step == ""
    wanted = {"accuracy": 1, "fact_recall": 1, "citation_precision": 1, "citation_recall": 1}
    wanted |= {"language_match": 1, "recall@1": 1}
    assert {name: got.scores[name] for name in wanted} == wanted
    assert got.scores["f1"] is None, "there is no reference to compare with"


def test_a_forbidden_string_makes_it_wrong() -> None:
    asked = question(must_include=[["蘋果"]], must_not_include=["2元"])
    got = record(asked, hits(1), answer("蘋果二元。[1]", 1))
    assert (got.scores["accuracy"], got.scores["fact_recall"]) == (0, 1)
    assert got.step == "wrongly answered"


def test_half_of_the_facts_is_not_right() -> None:
    asked = question(must_include=[["1元"], ["橘子"]])
    got = record(asked, hits(1), answer("蘋果1元。[1]", 1))
    assert (got.scores["accuracy"], got.scores["fact_recall"]) == (0, 1 / 2)


def test_markers_are_no_part_of_the_answer() -> None:
    asked = question(must_include=[["7"]], reference_answer="蘋果1元。")
    got = record(asked, hits(1), answer("蘋果1元。[7]", 1))
    assert got.scores["accuracy"] == 0
    assert got.scores["exact_match"] == 1
    assert got.scores["f1"] == 1


def test_a_refusal_of_an_answerable_question_scores_nothing() -> None:
    asked = question(must_include=[["提到"]], reference_answer="沒有提到。")
    got = record(asked, hits(1), answer("沒有提到。", abstained=True))
    assert got.right is False
    assert [got.scores[n] for n in ("accuracy", "fact_recall", "f1", "exact_match")] == [0, 0, 0, 0]
    assert got.scores["citation_precision"] is None, "only answered questions are judged by it"
    assert got.scores["valid"] is None
    assert got.step == "wrongly refused"


def test_an_answer_in_the_wrong_script() -> None:
    got = record(question(must_include=[["蘋果"]]), hits(1), answer("苹果说1元。[1]", 1))
    assert (got.scores["accuracy"], got.scores["language_match"]) == (1, 0)


def test_an_unanswerable_question_wants_a_refusal() -> None:
    asked = question(answerable=False, gold_paragraphs=[])
    refused = record(asked, hits(1), answer("沒有提到。", abstained=True))
    invented = record(asked, hits(1), answer("1元。[1]", 1))
    assert (refused.right, refused.step) == (True, "")
    assert (invented.right, invented.step) == (False, "wrongly answered")
    assert invented.scores["accuracy"] is None
    assert invented.scores["citation_precision"] is None
    assert invented.scores["support_recall"] == 1, "support is asked of every answer"


def test_what_was_searched_for_and_how_sure_it_was_is_recorded() -> None:
    told = replace(answer("1元。[1]", 1), queries=("多少錢？", "How much?"), signals={"score": 0.9})
    got = record(question(), hits(1), told)
    assert (got.confidence, got.queries) == (0.5, ("多少錢？", "How much?"))
    assert got.signals == {"score": 0.9}
    nothing = record(question(), hits(1), None)
    assert (nothing.confidence, nothing.queries, nothing.signals) == (None, (), {})


def test_what_a_refusal_names_is_no_citation() -> None:
    said = answer("沒有提到。最接近的內容見[1]。", abstained=True)
    told = replace(said, related=(Citation(1, "d", 1, 0, 9, TEXTS["d", 1]),))
    got = record(question(answerable=False, gold_paragraphs=[]), hits(1), told)
    assert (got.right, got.citations, got.scores["valid"]) == (True, (), None)
    assert got.scores["support_recall"] is None
    assert got.scores["language_match"] == 1


def test_what_the_set_leaves_open_is_recorded_only() -> None:
    asked = Question.model_validate({"id": "q", "question": "多少錢？"})
    got = record(asked, hits(1), answer("1元。[1]", 1))
    assert (got.right, got.step, got.scores["accuracy"]) == (None, "", None)
    assert got.answer == "1元。[1]"


# --- citations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "cited", "precision", "recall", "f1"),
    [
        ([1], [1], 1, 1, 1),
        ([1], [1, 2], 1 / 2, 1, 2 / 3),
        ([1, 2], [1], 1, 1 / 2, 2 / 3),  # two gold paragraphs, one cited
        ([1, 2], [1, 2, 1], 1, 1, 1),  # two quotations of one paragraph
        ([1], [2], 0, 0, 0),  # retrieved, shown, cited, and not gold
        ([1], [], 0, 0, 0),  # no citation at all is a miss
    ],
)
def test_citations_against_gold(
    gold: list[int], cited: list[int], precision: float, recall: float, f1: float
) -> None:
    got = record(question(gold_paragraphs=gold), hits(1, 2, 3), answer("1元。[1]", *cited))
    names = ("citation_precision", "citation_recall", "citation_f1")
    assert [got.scores[name] for name in names] == pytest.approx([precision, recall, f1])


def test_a_citation_to_what_was_retrieved_and_is_not_gold_is_mis_cited() -> None:
    got = record(question(must_include=[["2元"]]), hits(1, 2), answer("蘋果2元。[1]", 2))
    assert got.step == "used, mis-cited"
    assert got.scores["gold_cited"] == 0


def test_a_valid_citation_stands_word_for_word_and_supports() -> None:
    whole = record(question(), hits(1), answer("1元。[1]", 1))
    altered = record(question(), hits(1), answer("1元。[1]", 1, quote="蘋果，1元"))
    other = record(question(), hits(1), answer("9元。[1]", 1))
    none = record(question(), hits(1), answer("9元。"))
    assert [r.scores["valid"] for r in (whole, altered, other, none)] == [1, 0, 0, None]
    assert [r.citations[0].verbatim for r in (whole, altered, other)] == [True, False, True]
    assert [r.citations[0].supports for r in (whole, altered, other)] == [True, True, False]


def test_without_a_judge_support_is_not_guessed() -> None:
    asked = LIBRARY.place(question())
    got = Scorer(LIBRARY).record(asked, Outcome(hits(1), hits(1), answer("1元。[1]", 1)))
    assert got.scores["valid"] is None
    assert got.citations[0].supports is None
    assert got.scores["citation_precision"] == 1


# --- where it went wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "found", "said", "step"),
    [
        ([12], [1, 2], "refused", "not indexed"),
        ([9], [1, 2], "refused", "not retrieved"),
        ([9], [1, 2], "wrong", "not retrieved"),
        ([5], [1, 2, 3, 5], "wrong", "ranked out of the prompt"),
        ([5, 2], [1, 2, 3, 5], "wrong", "in the prompt, not used"),
        ([1], [1, 2, 3], "refused", "wrongly refused"),
        ([1], [1, 2, 3], "wrong, cited", "wrongly answered"),
        ([9], [1, 2, 3], "right", "used, mis-cited"),  # the fact stands elsewhere, too
        ([1], [1, 2, 3], "right, cited", ""),
        ([12], [1, 2], "nothing", "not indexed"),
        ([5], [1, 2, 3, 5], "nothing", "ranked out of the prompt"),
        ([1], [1, 2], "nothing", ""),
    ],
)
def test_the_first_step_that_failed_is_named(
    gold: list[int], found: list[int], said: str, step: str
) -> None:
    replies = {
        "refused": answer("沒有提到。", abstained=True),
        "wrong": answer("錯。[1]", 3),
        "wrong, cited": answer("錯。[1]", 1),
        "right": answer("對。[1]", 3),
        "right, cited": answer("對。[1]", 1),
        "nothing": None,
    }
    asked = question(gold_paragraphs=gold, must_include=[["對"]])
    assert record(asked, hits(*found), replies[said]).step == step


# --- gold without a document -----------------------------------------------------------------


def test_gold_belongs_to_the_only_document_or_names_its_own() -> None:
    assert LIBRARY.place(question()).gold[0].doc == "d"
    two = Library({("a", 1): "", ("b", 1): ""}, set())
    with pytest.raises(ConfigError, match=r"question q names no document.*\"doc\": \"a\""):
        two.place(question())
    named = question(gold_paragraphs=[], gold=[{"doc": "b", "paragraph": 1}])
    assert two.place(named).gold[0].doc == "b"
