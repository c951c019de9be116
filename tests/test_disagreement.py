from __future__ import annotations

from collections.abc import Callable

import pytest

from ragbot.bot import RagBot
from ragbot.disagreement import disagreeing
from ragbot.evidence import gather
from ragbot.phrases import ABSTENTION
from tests.fakes import FakeEngine, nothing, reading
from tests.test_citations import hits

MakeBot = Callable[..., RagBot]
BRIDGE = "青山橋在2016年建成。"
WHEN = "青山橋是哪一年建成的？"


@pytest.mark.parametrize(
    ("question", "claim", "proof", "other", "disagrees"),
    [
        (WHEN, BRIDGE, BRIDGE, "青山橋在2019年建成，很長。", True),
        (WHEN, BRIDGE, BRIDGE, "青山桥在2019年建成。", True),  # in the other script
        (WHEN, BRIDGE, BRIDGE, "青山橋在2016年建成，長430米。", False),  # the same number, and more
        (WHEN, BRIDGE, BRIDGE, "青山橋在２０１６年建成。", False),
        (WHEN, BRIDGE, BRIDGE, "紅葉塔在2019年建成。", False),  # another thing
        (WHEN, BRIDGE, BRIDGE, "青山橋每次容800人。", False),  # something else of it
        (WHEN, BRIDGE, BRIDGE, "青山橋早就建成了。", False),  # no number
        (WHEN, BRIDGE, BRIDGE, "The 青山 bridge was finished in 2019.", False),  # other language
        (WHEN, "青山橋早就建成了。", BRIDGE, "青山橋在2019年建成。", False),  # no number to differ
        # The question's own numbers are neither said nor contradicted.
        ("青山橋在2016年做了什麼？", BRIDGE, BRIDGE, "青山橋在2019年建成。", False),
        (
            "2016年有多少人過青山橋？",
            "2016年有800人過青山橋。",
            "2016年有800人過青山橋。",
            "2016年有950人過青山橋。",
            True,
        ),
        (
            "2016年有多少人過青山橋？",
            "2016年有800人過青山橋。",
            "2016年有800人過青山橋。",
            "2016年沒有人過青山橋。",
            False,
        ),
        (
            "When did the Green Hill bridge open?",
            "The Green Hill bridge opened in 2016.",
            "The Green Hill bridge opened in 2016.",
            "The Green Hill bridge was opened in 2019.",
            True,
        ),
        (
            "When did the Green Hill bridge open?",
            "The Green Hill bridge opened in 2016.",
            "The Green Hill bridge opened in 2016.",
            "The Green Hill tower was opened in 2019.",
            False,
        ),
        ("有多少？", "3000萬。", "共有3000萬。", "共有30,000,000。", False),  # said otherwise
    ],
)
def test_other_numbers_for_the_same_thing_disagree(
    question: str, claim: str, proof: str, other: str, disagrees: bool
) -> None:
    first, second = gather(hits(proof, other))
    found = disagreeing(question, claim, first, [first, second])
    assert found == (second if disagrees else None)


def test_a_passage_does_not_disagree_with_itself() -> None:
    pieces = gather(hits(f"{BRIDGE}青山橋在2019年重新建成。"))
    assert disagreeing(WHEN, BRIDGE, pieces[0], pieces) is None


def test_the_first_that_disagrees_is_named() -> None:
    pieces = gather(hits(BRIDGE, "青山橋在2019年建成。", "青山橋在2021年建成。"))
    assert disagreeing(WHEN, BRIDGE, pieces[0], pieces) == pieces[1]


# --- as a reader sees it ---------------------------------------------------------------------


def test_both_are_told_and_cited(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(reading(BRIDGE, BRIDGE))
    answer = make_bot(BRIDGE, "青山橋在2019年建成。", "紅葉塔在1990年建成。").ask(WHEN)
    assert answer.answer == f"{BRIDGE}[1]但另一處寫的是：「青山橋在2019年建成」。[2]"
    assert [(c.marker, c.doc, c.quote) for c in answer.citations] == [
        (1, "doc1.txt", BRIDGE),
        (2, "doc2.txt", "青山橋在2019年建成。"),
    ]


def test_a_reader_is_told_in_their_own_script(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(reading(BRIDGE, BRIDGE))
    answer = make_bot(BRIDGE, "青山橋在2019年建成。").ask("青山桥是哪一年建成的？")
    assert answer.answer.endswith("但另一处写的是：“青山桥在2019年建成”。[2]")
    assert answer.citations[1].quote == "青山橋在2019年建成。"


def test_a_foreign_reader_is_told_in_their_own_language(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    engine.enqueue(
        "青山桥是哪一年建成的？",
        reading(BRIDGE, BRIDGE),
        "The bridge was finished in 2016.",
        "The bridge was finished in 2019.",
    )
    answer = make_bot(BRIDGE, "青山橋在2019年建成。").ask("In which year was it finished?")
    assert "2016" in answer.answer and "[1]" in answer.answer
    assert "But another source says:" in answer.answer and "2019" in answer.answer
    assert answer.answer.endswith("[2]")
    assert [c.doc for c in answer.citations] == ["doc1.txt", "doc2.txt"]


def test_agreement_and_refusals_have_nothing_to_add(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(reading(BRIDGE, BRIDGE), nothing(), nothing())
    bot = make_bot(BRIDGE, "青山橋在2016年建成，長430米。")
    assert bot.ask(WHEN).answer == f"{BRIDGE}[1]"
    assert bot.ask("晚餐吃什麼好呢？").answer == ABSTENTION["zh-Hant"]
