from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from ragbot.enumeration import asked_for
from ragbot.generator import Generator, parsed
from ragbot.prompts import reading_form
from ragbot.types import Language, Message, Token
from tests.fakes import FakeEngine, Reply, reading


@pytest.fixture
def generator(engine: FakeEngine) -> Generator:
    return Generator(lambda: engine, 99, None)


# --- readings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence", "answer"),
    [
        ("原句：甲。\n答案：乙。", "甲。", "乙。"),
        ("Sentence: A.\nAnswer: B.", "A.", "B."),
        ("Sentence: 甲。\nAnswer: 乙。", "甲。", "乙。"),
        (" 原句： 甲。 \n\n答案： 乙。 \n", "甲。", "乙。"),
        ("原句：甲。\n原句：乙。\n答案：丙。", "甲。\n乙。", "丙。"),
        ("Sentence: A.\nSentence: B.\nSentence: C.\nAnswer: D.", "A.\nB.\nC.", "D."),
        ("原句：甲。\n答案：乙。丙。", "甲。", "乙。丙。"),
        ("原句：甲。\n答案：", "甲。", ""),
        # An engine that is not held to the form writes as it likes.
        ("答案：乙。", "", "乙。"),
        ("乙。", "", "乙。"),
        ("", "", ""),
        ("\n", "", ""),
        # Refusals.
        ("原句：无\n答案：无", "无", ""),
        ("原句：無\n答案：無。", "無", ""),
        ("Sentence: none\nAnswer: None.", "none", ""),
        ("原句：甲。\n答案：无", "甲。", ""),
        ("原句：无\n答案：乙。", "无", ""),
        ("无", "", ""),
        ("none", "", ""),
        ("原句：甲。\n答案：文章没有提到这件事。", "甲。", ""),
        ("Sentence: A.\nAnswer: The text does not say.", "A.", ""),
        ("资料没有提到。", "", ""),
        ("原句:甲。\n答案:乙。", "甲。", "乙。"),
        ("sentence: A.\nANSWER: B.", "A.", "B."),
        # What was copied may hold a label, or say that something is not known.
        ("原句：第一題的答案：42。\n答案：是42。", "第一題的答案：42。", "是42。"),
        ("原句：目前無法確定病因。\n答案：病因還不清楚。", "目前無法確定病因。", "病因還不清楚。"),
        ("原句：甲，到此被打", "甲，到此被打", ""),  # broken off
    ],
)
def test_a_reading_is_taken_apart(text: str, sentence: str, answer: str) -> None:
    read = parsed(text)
    assert [line.strip() for line in read.sentence.splitlines()] == sentence.splitlines()
    assert read.answer == answer


def tokens(*written: str, **likeliest: float) -> list[Token]:
    """Tokens, each as likely as can be, of which the last one's rivals are given."""
    return [
        *(Token(text, {text: 0.0, "无": -0.5}) for text in written[:-1]),
        Token(written[-1], likeliest),
    ]


@pytest.mark.parametrize(
    ("written", "log_none"),
    [
        (tokens("答案", "：", "甲", 甲=-0.1, 无=-2.5), -2.5),
        (tokens("答案：", "无", 无=-0.2), -0.2),
        (tokens("Answer", ":", " The", **{" The": -0.1, " none": -3.0}), -3.0),
        (tokens("Answer", ": ", "None", **{"None": -0.7, " none": -4.0}), -0.7),
        (tokens("答案", "：", "甲", 甲=-0.1, 乙=-2.0), -10),  # not among the likeliest
        (tokens("答案", "：", "甲", 甲=-0.1, 无=-30.0), -10),
        (tokens("答案", "：", "甲"), -10),
        (tokens("Answer", ":", " No", **{" No": -0.1, " none": -6.0}), -6),  # No more than 800
        (
            tokens("原句：", "答案", "：", "甲", "\n", "答案", "：", "乙", 无=-3.0),
            -3,
        ),  # a line's first
        (tokens("原句", "：", "甲", 无=-0.1), -10),  # no answer
        (tokens("答案："), -10),
        ([], -10),
    ],
)
def test_how_likely_none_was_is_read_off_the_word_behind_the_label(
    written: Sequence[Token], log_none: float
) -> None:
    assert parsed("原句：甲。\n答案：乙。", written).log_none == log_none


@pytest.mark.parametrize(
    ("written", "log_least"),
    [
        (tokens("原句：", "甲", "\n", "答案：", "乙", 乙=-3.0), -3),
        (tokens("原句：", "甲", 甲=-3.0), -2),  # of no answer nothing is known
        (tokens("答案：", "乙", 丙=-0.1), -10),
        ([], -2),
    ],
)
def test_how_sure_an_answer_is_its_least_likely_token_tells(
    written: Sequence[Token], log_least: float
) -> None:
    assert parsed("原句：甲。\n答案：乙。", written).log_least == log_least


def test_a_reading_is_asked_in_the_texts_language_and_simplified_chinese(
    generator: Generator, engine: FakeEngine
) -> None:
    engine.enqueue(reading("华为。", "是华为。", none=-4.5), reading("Huawei.", "It was Huawei."))
    found = generator.read("華為的哪三個軍團？", ["華為組建醫療軍團。"], "zh-Hant")
    assert (found.sentence, found.answer, found.log_none) == ("华为。", "是华为。", -4.5)
    assert engine.prompts[0][-1].content == "文章：华为组建医疗军团。\n问题：华为的哪三个军团？"
    generator.read("華為？", ["Huawei founded a corps."], "en")
    assert engine.prompts[1][-1].content == "Text: Huawei founded a corps.\nQuestion: 华为？"
    assert engine.forms == [reading_form("zh", 3), reading_form("en")]
    assert len(engine.prompts[0]) == len(engine.prompts[1]) > 3, "the same examples in both"


def test_all_that_was_written_is_kept_and_counted(generator: Generator, engine: FakeEngine) -> None:
    engine.enqueue("甲？", Reply("乙"))
    generator.translated_question("A?", "zh-Hans")
    generator.read("甲？", ["甲。"], "zh-Hans")
    assert generator.written.text == "甲？\n乙"
    assert generator.written.tokens[1] == 3


def test_cancelling_is_seen() -> None:
    cancel = threading.Event()
    assert not Generator(FakeEngine, 9, None).cancelled
    generator = Generator(FakeEngine, 9, cancel)
    assert not generator.cancelled
    cancel.set()
    assert generator.cancelled


# --- questions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "wanted", "written", "translation"),
    [
        ("Who founded it?", "zh-Hans", "谁创办的？", "谁创办的？"),
        ("Who founded it?", "zh-Hant", " 谁创办的？\n注：无", "谁创办的？"),
        ("誰創辦的？", "en", "Who founded it?", "Who founded it?"),
        ("誰創辦的？", "en", "谁创办的？", ""),
        ("Who founded it?", "zh-Hans", "Who founded it?", ""),
        ("Who founded it?", "zh-Hans", "", ""),
        ("誰創辦的？", "en", "", ""),
    ],
)
def test_a_translated_question_is_in_the_language_asked_for_or_empty(
    question: str, wanted: Language, written: str, translation: str
) -> None:
    engine = FakeEngine().enqueue(written)
    assert Generator(lambda: engine, 99, None).translated_question(question, wanted) == translation
    assert engine.prompts[0][-1] == Message("user", question)


@pytest.mark.parametrize(
    ("question", "language", "written", "asked"),
    [
        # The asker's words and script are kept.
        ("那設計師是哪裡人？", "zh-Hant", "青山桥的设计师是哪里人？", "青山橋的設計師是哪裡人？"),
        ("那设计师是哪里人？", "zh-Hans", "青山桥的设计师是哪里人？\n\n好的", "青山桥的设计师是哪里人？"),
        ("Who designed it?", "en", "Who designed the bridge?", "Who designed the bridge?"),
        # Something else, another language, or nothing: then it is joined to the one before.
        ("那設計師是哪裡人？", "zh-Hant", "天氣好嗎？", "橋在哪裡？ 那設計師是哪裡人？"),
        ("Who designed it?", "en", "谁 designed 它？", "橋在哪裡？ Who designed it?"),
        ("那設計師是哪裡人？", "zh-Hant", "Where is the 設計師 from，哪裡人?", "橋在哪裡？ 那設計師是哪裡人？"),
        ("那設計師是哪裡人？", "zh-Hant", "  \n", "橋在哪裡？ 那設計師是哪裡人？"),
    ],
)  # fmt: skip
def test_a_rewritten_question_keeps_what_was_asked(
    question: str, language: Language, written: str, asked: str
) -> None:
    history = [
        Message("user", "橋有多長？"),
        Message("assistant", "430米。[1]"),
        Message("user", "橋在哪裡？"),
        Message("assistant", "在青山。[1]"),
    ]
    engine = FakeEngine().enqueue(written)
    generator = Generator(lambda: engine, 99, None)
    assert generator.rewritten_question(question, history, language) == asked


def test_without_a_question_before_it_a_follow_up_stands_alone(
    generator: Generator, engine: FakeEngine
) -> None:
    engine.enqueue("")
    said = [Message("assistant", "有什麼想問的嗎？")]
    assert generator.rewritten_question("橋在哪裡？", said, "zh-Hant") == "橋在哪裡？"


def test_what_is_in_the_readers_language_is_not_retold(
    generator: Generator, engine: FakeEngine
) -> None:
    assert generator.retold("誰？", "是華為。", "zh-Hans") == "是華為。"
    assert generator.translated("是華為。", "zh-Hans") == ""
    assert engine.prompts == []
    engine.enqueue("It was Huawei.", "It was Huawei.")
    assert generator.retold("Who was it?", "華為", "en") == "It was Huawei (華為)."
    assert generator.translated("是華為。", "en") == "It was Huawei."


def test_half_a_language_is_none(engine: FakeEngine) -> None:
    engine.enqueue("The most critical resource measured is time, at all times.")
    generator = Generator(lambda: engine, 50, None)
    claim = "最 critical resource measured to in assessing 图灵机 problems at all times is time"
    assert "最" not in generator.retold("What is it?", claim, "en")


@pytest.mark.parametrize(
    ("question", "things"),
    [
        ("大模型的三個壁壘是什麼？", 3),
        ("两把剑叫什么？", 2),
        ("哪４種做法？", 4),
        ("公司有哪3家？", 3),
        ("What are the three barriers?", 3),
        ("Which two hospitals took part?", 2),
        ("Name the four swords.", 4),
        ("大模型的壁壘是什麼？", 1),
        ("華為在哪兩個月宣布的？", 1),
        ("等了三個小時嗎？", 1),
        ("Who came?", 1),
        ("2023年的事？", 1),
        ("哪十個人？", 1),
        ("第三個壁壘是什麼？", 1),
        ("第二大城市是哪個？", 1),
        ("哪12家醫院？", 1),
        ("哪十三項？", 1),
        ("What happened after two years?", 1),
    ],
)
def test_how_many_things_are_asked_for(question: str, things: int) -> None:
    assert asked_for(question).things == things
