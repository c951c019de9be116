"""Questions to begin with and to go on with: whether they stand alone, lead back, and are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragbot.bot import RagBot
from ragbot.errors import ModelError, StoreError
from ragbot.evaluation.matching import in_language
from ragbot.index import Index
from ragbot.store import MANIFEST
from ragbot.text import detect_script
from ragbot.types import Answer, Citation, Language, Timings
from ragbot.web.posing import stands_alone
from ragbot.web.starts import (
    Start,
    chosen,
    make_starts,
    save_starts,
    saved_starts,
    starts_for,
    suggestions,
)
from tests.fakes import FakeEncoder, FakeEngine, nothing, reading

BRIDGE = "青山橋長430公尺，寬6公尺，2016年完工，耗資三億元，由哈伊姆設計，他來自海法。"
SHOP = "山貨書店每到週末就關門，因為老闆娘陳女士那兩天要去山裡的學校教畫畫，已經教了十年。"
ENGLISH = (
    "The Green Hill bridge is 430 metres long and was finished in 2016 after nine years of work,"
    " which cost three times as much as its planners had told the town."
)
LONG_ASKED = "青山橋有多少公尺長？"
TRANSLATED = "How many metres long is the Green Hill bridge?"


def answered() -> tuple[str, ...]:
    """What the engine says of the bridge to a Chinese question."""
    return (reading(BRIDGE, "青山橋長430公尺。").text,)


def in_english() -> tuple[str, ...]:
    """What it says to an English one: the question's translation, a reading, a retelling."""
    return ("青山桥长多少米？", reading(BRIDGE, "青山橋長430公尺。").text, "It is 430 metres long.")


@pytest.fixture
def going() -> threading.Event:
    return threading.Event()


# --- what stands alone -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("青山桥的设计师哈伊姆来自哪里？", "zh-Hans"),
        ("青山橋的設計師哈伊姆來自哪裡？", "zh-Hant"),
        ("《紅樓夢》的作者是誰？", "zh-Hant"),
        ("日本文化中什么最重要？", "zh-Hans"),
        ("60岁以上的老人有多少？", "zh-Hans"),
        ("应该怎样训练医疗模型？", "zh-Hans"),
        ("丹麦和其他国家有什么不同？", "zh-Hans"),
        ("谁在2019年弹吉他得奖？", "zh-Hans"),
        ("GPT-4 在医师考试中得了多少分？", "zh-Hans"),
        ("How long does it take to cross the bridge?", "en"),
        ("How do birds find their way home?", "en"),
        ("Who is the author of Hamlet?", "en"),
        ("What did the World Health Organization do in 2019?", "en"),
    ],
)
def test_what_names_its_matter_stands_alone(question: str, language: Language) -> None:
    assert stands_alone(question, language)


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("文中提到的模型叫什么？", "zh-Hans"),
        ("本文的主要觀點是什麼？", "zh-Hant"),
        ("這篇文章講了什麼內容？", "zh-Hant"),
        ("作者认为什么最重要？", "zh-Hans"),
        ("该模型有多少个参数？", "zh-Hans"),
        ("那個模型有多少參數？", "zh-Hant"),
        ("上述三个障碍是什么？", "zh-Hans"),
        ("他为什么搬到海边去住？", "zh-Hans"),
        ("它的設計師來自哪裡呢？", "zh-Hant"),
        ("其设计师来自哪一座城市？", "zh-Hans"),
        ("What is the main idea of this passage?", "en"),
        ("According to the text, who built the bridge?", "en"),
        ("What are the three barriers mentioned?", "en"),
        ("What does the author think of bridges?", "en"),
        ("Where does he come from in the north?", "en"),
        ("What is its main purpose in the town?", "en"),
        ("When was it finished by the town?", "en"),
        ("Which of these bridges is the longest?", "en"),
    ],
)
def test_what_points_at_a_text_does_not(question: str, language: Language) -> None:
    assert not stands_alone(question, language)


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("", "zh-Hans"),
        ("？", "zh-Hans"),
        ("青山桥有多长", "zh-Hans"),
        ("桥多长？", "zh-Hans"),
        ("青山桥" * 17 + "有多长？", "zh-Hans"),
        ("青山桥有多长？书店在哪里？", "zh-Hans"),
        ("青山桥有多长？\n不知道？", "zh-Hans"),
        ("How long is the Green Hill bridge?", "zh-Hans"),
        ("青山橋有多少公尺長？", "en"),
        ("How long is the <b>Green Hill</b> bridge?", "en"),
        ("How long is ![the](//x) Green Hill bridge?", "en"),
        ("Is all of it told at https://example.org?", "en"),
        ("What does <|im_end|> mean to Green Hill?", "en"),
        ("How long is the\u202e Green Hill bridge?", "en"),
        ("Will you write one question that a single sentence of it answers?", "en"),
        ("怎样出一道能用其中一句话回答的题？", "zh-Hans"),
    ],
)
def test_what_is_no_short_plain_question_is_none(question: str, language: Language) -> None:
    assert not stands_alone(question, language)


# --- which passages --------------------------------------------------------------------------


def longish(text: str) -> str:
    return text + "，這是為了讓段落長得足以拿來問一個問題而添加的一句沒有內容的話，別無用意。"


def test_passages_are_spread_over_documents_and_over_each(
    make_index: Callable[..., Index],
) -> None:
    texts = ["\n".join(longish(f"文件{n}段落{m}") for m in range(1, 9)) for n in range(4)]
    order = [(passage.doc, passage.paragraph) for passage in chosen(make_index(*texts))]
    assert len(set(order)) == len(order) == 32
    assert {doc for doc, _ in order[:4]} == {"doc1.txt", "doc2.txt", "doc3.txt", "doc4.txt"}
    assert len({paragraph for _, paragraph in order[:4]}) > 2, "not all from the beginnings"
    for name in ("doc1.txt", "doc4.txt"):
        first = sorted(paragraph for doc, paragraph in order[:16] if doc == name)
        assert [b - a for a, b in pairwise(first)] == [2, 2, 2]


def test_a_large_corpus_is_asked_about_all_over(make_index: Callable[..., Index]) -> None:
    order = [passage.doc for passage in chosen(make_index(*map(longish, map(str, range(16)))))]
    numbers = sorted(int(name.removeprefix("doc").removesuffix(".txt")) for name in order[:4])
    assert len(order) == 16 and len(set(order)) == 16
    assert numbers[0] <= 4 and numbers[-1] > 12


def test_a_paragraph_too_short_to_ask_about_is_passed_over(
    make_index: Callable[..., Index],
) -> None:
    index = make_index("短。\n" + longish("長段落"), "也短。")
    assert [(passage.doc, passage.paragraph) for passage in chosen(index)] == [("doc1.txt", 2)]


# --- making them -----------------------------------------------------------------------------


def test_a_question_is_kept_in_each_language_in_which_it_leads_back(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(BRIDGE, "公司在台北。")
    engine.enqueue(LONG_ASKED, TRANSLATED, *answered(), *answered(), *in_english())
    starts = make_starts(bot, passages=1, cancel=going)
    assert starts == (
        Start("青山桥有多少公尺长？", "zh-Hans", "doc1.txt", 1),
        Start(LONG_ASKED, "zh-Hant", "doc1.txt", 1),
        Start(TRANSLATED, "en", "doc1.txt", 1),
    )
    assert all(in_language(start.question, start.language) for start in starts)
    assert not engine.replies


def test_an_english_passage_gives_both_scripts(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(ENGLISH)
    told = reading(ENGLISH, "The bridge is 430 metres long.").text
    across = (TRANSLATED, told, "青山桥长430米。")
    engine.enqueue(TRANSLATED, "青山桥有多少米长？", told, *across, *across)
    starts = make_starts(bot, passages=1, cancel=going)
    assert [(start.question, start.language) for start in starts] == [
        (TRANSLATED, "en"),
        ("青山桥有多少米长？", "zh-Hans"),
        ("青山橋有多少米長？", "zh-Hant"),
    ]


def test_the_generator_sees_one_passage_and_a_form(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot("青山橋<|im_end|>" + BRIDGE)
    engine.enqueue("没有问题")
    assert make_starts(bot, passages=1, cancel=going) == ()
    (prompt,), (form,) = engine.prompts, engine.forms
    assert prompt[0].role == "system" and prompt[-1].role == "user"
    assert detect_script(prompt[-1].content) == "zh-Hans"
    assert "430" in prompt[-1].content and "<|im_end|>" not in prompt[-1].content
    assert form.startswith("root ::= ") and form.endswith('"？"')
    for example in prompt[2::2]:
        assert stands_alone(example.content, "zh-Hans"), "the examples are good ones"


@pytest.mark.parametrize(
    ("asked", "said", "kept"),
    [
        ("青山桥有多少公尺长？", nothing().text, []),
        ("书店每到周末就关门吗？", reading(SHOP, "書店每到週末就關門。").text, []),
        ("青山桥有多少公尺长？", reading(BRIDGE, "青山橋長430公尺。").text, ["zh-Hans", "zh-Hant"]),
    ],
    ids=["a refusal", "another paragraph", "the paragraph"],
)
def test_only_what_cites_the_paragraph_is_kept(
    make_bot: Callable[..., RagBot], engine: FakeEngine, asked: str, said: str, kept: list[str]
) -> None:
    bot = make_bot(BRIDGE, SHOP)
    passage = next(chunk for chunk in chosen(bot.retriever.index) if "430" in chunk.text)
    engine.enqueue(asked, "no translation?", said, said)
    found = starts_for(bot, passage, cancel=threading.Event())
    assert [start.language for start in found] == kept


def test_a_passage_that_gives_none_makes_room_for_another(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(SHOP, BRIDGE)
    engine.enqueue("她為什麼關門呢？", LONG_ASKED, "no", *answered(), *answered())
    starts = make_starts(bot, passages=1, cancel=going)
    assert {start.doc for start in starts} == {"doc2.txt"}
    assert len(starts) == 2 and not engine.replies


def test_it_gives_up_some_time(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(*map(longish, "甲乙丙丁戊"))
    engine.enqueue(*["no question"] * 5)
    assert make_starts(bot, passages=2, cancel=going) == ()
    assert len(engine.prompts) == 4, "twice as many passages as are wanted"


def test_what_both_scripts_write_alike_is_asked_once(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(BRIDGE)
    engine.enqueue("青山宽有多少公尺？", "no", *answered(), *answered())
    first = len(make_starts(bot, passages=1, cancel=going))
    asked = len(engine.prompts)
    engine.replies.clear()
    engine.enqueue("青山有多少公尺高呢？", "no", *answered())
    starts = make_starts(bot, passages=1, cancel=going)
    assert [start.question for start in starts] == ["青山有多少公尺高呢？"] * 2
    assert (first, len(engine.prompts) - asked) == (2, asked - 1)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_cancelled_gives_nothing(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event, after: int
) -> None:
    bot = make_bot(BRIDGE, SHOP)
    engine.enqueue(LONG_ASKED, TRANSLATED, *answered(), *answered(), *in_english())
    pauses: list[int] = []
    if not after:
        going.set()

    def pause() -> None:
        pauses.append(len(engine.prompts))
        if len(pauses) == after:
            going.set()

    assert make_starts(bot, passages=2, cancel=going, pause=pause) == ()
    assert len(pauses) == after
    assert len(engine.prompts) == [1, 2, 3][after], "nothing more is asked of the generator"


def test_others_come_in_between(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(BRIDGE)
    engine.enqueue(LONG_ASKED, "no", *answered(), *answered())
    pauses: list[int] = []
    make_starts(bot, passages=1, cancel=going, pause=lambda: pauses.append(len(engine.prompts)))
    assert pauses == [2, 3]


def test_a_generator_that_fails_is_told_of(
    make_bot: Callable[..., RagBot], engine: FakeEngine, going: threading.Event
) -> None:
    bot = make_bot(BRIDGE)
    engine.enqueue(LONG_ASKED, "no", ModelError("It is gone: start it."))
    with pytest.raises(ModelError, match="gone"):
        make_starts(bot, passages=1, cancel=going)


# --- keeping them ----------------------------------------------------------------------------

KEPT = (
    Start(LONG_ASKED, "zh-Hant", "doc1.txt", 1),
    Start(TRANSLATED, "en", "doc1.txt", 1),
)


@pytest.mark.parametrize("starts", [KEPT, ()])
def test_what_is_saved_is_there_again(
    make_index: Callable[..., Index], tmp_path: Path, starts: tuple[Start, ...]
) -> None:
    index, folder = make_index(BRIDGE), tmp_path / "made"
    assert saved_starts(folder, index) is None
    save_starts(folder, index, starts)
    assert saved_starts(folder, index) == starts
    assert {path.name for path in folder.iterdir() if path.is_file()} >= {MANIFEST, "starts.json"}


def test_another_corpus_has_others(make_index: Callable[..., Index], tmp_path: Path) -> None:
    folder = tmp_path / "made"
    index = make_index(BRIDGE)
    save_starts(folder, index, KEPT)
    assert saved_starts(folder, make_index(BRIDGE + "改。")) is None
    assert saved_starts(folder, make_index(BRIDGE)) == KEPT, "the same one once more"
    encoded = replace(index.manifest, encoder_fingerprint="another")
    index.manifest = encoded
    assert saved_starts(folder, index) is None


@pytest.mark.parametrize(
    "change",
    [
        ("{", ""),
        ('"starts"', '"begins"'),
        ('"zh-Hant"', '"fr"'),
        (LONG_ASKED, "<script>alert(1)</script>?"),
        ('"paragraph": 1', '"paragraph": "first"'),
        ('"made_for"', '"made"'),
    ],
)
def test_a_damaged_file_is_none(
    make_index: Callable[..., Index], tmp_path: Path, change: tuple[str, str]
) -> None:
    index, folder = make_index(BRIDGE), tmp_path / "made"
    save_starts(folder, index, KEPT)
    path = folder / "starts.json"
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    assert saved_starts(folder, index) is None


def test_a_folder_that_cannot_be_written_to_is_one_sentence(
    make_index: Callable[..., Index], tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="make it writable"):
        save_starts(tmp_path / "nowhere", make_index(BRIDGE), KEPT)


# --- what to ask next ------------------------------------------------------------------------

PREPARED = (
    Start("青山橋有多少公尺長？", "zh-Hant", "a", 1),
    Start("青山桥有多少公尺长？", "zh-Hans", "a", 1),
    Start("How long is the Green Hill bridge?", "en", "a", 1),
    Start("青山橋的設計師是誰？", "zh-Hant", "a", 2),
    Start("山貨書店為什麼關門？", "zh-Hant", "b", 1),
    Start("公司有多少個員工？", "zh-Hant", "c", 1),
    Start("老闆娘教什麼課？", "zh-Hant", "b", 2),
)


def answer(question: str, language: Language = "zh-Hant", **changes: object) -> Answer:
    plain = Answer(question, language, "是。", True, (), (), Timings(1, 2, 3))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_nearest_come_first_and_in_the_askers_script(encoder: FakeEncoder) -> None:
    asked = "青山橋在哪一年完工？"
    found = suggestions(PREPARED, answer(asked), [asked], encoder)
    assert len(found) == 3
    assert set(found[:2]) == {"青山橋有多少公尺長？", "青山橋的設計師是誰？"}
    assert suggestions(PREPARED, answer(asked, "zh-Hans"), [], encoder) == ("青山桥有多少公尺长？",)
    assert suggestions(PREPARED, answer("Where is it?", "en"), [], encoder) == (
        "How long is the Green Hill bridge?",
    )


def test_a_follow_up_is_looked_up_as_it_was_searched_for(encoder: FakeEncoder) -> None:
    followed = answer("那她呢？", queries=("山貨書店的老闆娘教什麼？", "What does she teach?"))
    assert suggestions(PREPARED, followed, [], encoder, limit=1) == ("老闆娘教什麼課？",)


@pytest.mark.parametrize(
    "asked", ["青山橋的設計師是誰？", "青山桥的设计师是谁", " 青山橋，的設計師是誰?? ", "青山橋的設計師是誰！"]
)  # fmt: skip
def test_what_was_asked_is_not_suggested(encoder: FakeEncoder, asked: str) -> None:
    for found in (
        suggestions(PREPARED, answer("青山橋？"), [asked], encoder, limit=9),
        suggestions(PREPARED, answer(asked), [], encoder, limit=9),
        suggestions(PREPARED, answer("她？", queries=(asked,)), [], encoder, limit=9),
    ):
        assert "青山橋的設計師是誰？" not in found and len(found) == 4


def test_what_was_just_read_is_not_suggested(encoder: FakeEncoder) -> None:
    told = answer("橋多長？", citations=(Citation(1, "a", 1, 0, 1, "x"),), abstained=False)
    assert "青山橋有多少公尺長？" not in suggestions(PREPARED, told, [], encoder, limit=9)


def test_nothing_is_left_some_time(encoder: FakeEncoder) -> None:
    everything = [start.question for start in PREPARED]
    assert suggestions(PREPARED, answer("青山橋？"), everything, encoder) == ()
    assert suggestions((), answer("青山橋？"), [], encoder) == ()


def test_prepared_questions_are_encoded_once() -> None:
    class Counting(FakeEncoder):
        asked = 0

        def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.asked += len(texts)
            return super().queries(texts)

    encoder = Counting()
    for number in range(4):
        suggestions(PREPARED, answer(f"青山橋{number}？"), [], encoder)
    assert encoder.asked == len(PREPARED) + 4
