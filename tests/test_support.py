"""Which sentence a marker belongs to, ALCE's figures by hand, and how far the judge can be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ragbot.config import load_config
from ragbot.engines.llamacpp import LlamaCppEngine
from ragbot.evaluation.support import (
    cited_sentences,
    entailment,
    recall_and_precision,
    without_markers,
)
from ragbot.types import Message
from ragbot.workspace import default_engine

PAIRS = Path(__file__).parent / "data" / "support_pairs.jsonl"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("甲。[1]乙。[2]", [("甲。", [1]), ("乙。", [2])]),
        ("甲。乙。[1][2]", [("甲。", []), ("乙。", [1, 2])]),
        ("One. [1] Two [2].", [("One.", [1]), ("Two", [2])]),
        ("甲[1]，乙[2]。", [("甲", [1]), ("，乙", [2])]),
        ("Nothing.", [("Nothing.", [])]),
        ("甲。[1] [1]", [("甲。", [1, 1])]),
        ("[1]", []),
        ("", []),
    ],
)
def test_a_marker_belongs_to_the_sentence_before_it(
    answer: str, found: list[tuple[str, list[int]]]
) -> None:
    assert cited_sentences(answer) == found


def test_an_answer_reads_without_its_markers() -> None:
    assert without_markers("甲[1][2]。 It is 5 [3].") == "甲 。 It is 5 ."


def supports(claim: str, text: str) -> bool:
    """A claim is supported when all its letters are in the text."""
    return set(claim) - set(".") <= set(text)


@pytest.mark.parametrize(
    ("answer", "quotes", "recall", "precision", "good"),
    [
        ("A.[1]", {1: "A"}, 1, 1, {1: True}),
        ("A.[1]", {1: "B"}, 0, 0, {1: False}),
        ("AA. BB.[1]", {1: "B"}, 1 / 2, 1, {1: True}),  # an uncited sentence is not recalled
        ("AB.[1][2]", {1: "A", 2: "B"}, 1, 1, {1: True, 2: True}),  # only together: both precise
        ("A.[1][2]", {1: "A", 2: "B"}, 1, 1 / 2, {1: True, 2: False}),  # the second adds nothing
        ("A.[1][2]", {1: "A", 2: "A"}, 1, 1, {1: True, 2: True}),  # each supports it alone
        ("AB.[1][2]", {1: "A", 2: "C"}, 0, 0, {1: False, 2: False}),  # not recalled, not precise
        ("A.[1] B.[1]", {1: "A"}, 1 / 2, 1 / 2, {1: True}),  # one citation, two sentences
        ("A.[2]", {1: "A"}, 0, 0, {2: False}),  # a marker that stands for nothing
        ("A.", {}, 0, 0, {}),
    ],
)
def test_alce_by_hand(
    answer: str, quotes: dict[int, str], recall: float, precision: float, good: dict[int, bool]
) -> None:
    assert recall_and_precision(answer, quotes, supports) == (recall, precision, good)


def test_the_relation_is_read_from_the_likeliest_tokens() -> None:
    asked: list[Sequence[Message]] = []

    def first_token(messages: Sequence[Message]) -> Mapping[str, float]:
        asked.append(messages)
        return {"neutral": -0.1, " ent": -2.0, "Contr": -3.0, "the": -9.0}

    check = entailment(first_token)
    assert check("it rains", "wet\nnews")
    assert check("it rains", "wet\nnews")
    assert len(asked) == 1, "the same pair is asked once"
    assert "Premise: wet news\nHypothesis: it rains" in asked[0][-1].content
    assert not entailment(lambda _: {"neutral": -0.01, "ent": -4.0})("a", "b")
    assert not entailment(lambda _: {"maybe": -0.01})("a", "b"), "says nothing: not supported"


@pytest.mark.model
def test_the_judge_agrees_with_hand_labels() -> None:
    """`make agreement` prints the figures; here they may not fall."""
    engine = default_engine(load_config())
    assert isinstance(engine, LlamaCppEngine)
    check = entailment(engine.first_token)
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    agreed = [check(pair["claim"], pair["quote"]) == pair["supported"] for pair in pairs]
    assert len(agreed) == 100
    assert sum(agreed) >= 87
