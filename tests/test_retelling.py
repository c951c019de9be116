from __future__ import annotations

from collections.abc import Callable

import pytest

from ragbot.bot import RagBot
from ragbot.phrases import refuses
from ragbot.retelling import messages, retold
from ragbot.text import to_language
from ragbot.types import Language
from tests.fakes import FakeEngine, reading

MakeBot = Callable[..., RagBot]
WHICH = "Which hospital worked with Huawei?"


@pytest.mark.parametrize(
    ("written", "claim", "language", "shown"),
    [
        # The source's term goes with a retelling of it, once.
        ("Ruijin Hospital did.", "瑞金醫院", "en", "Ruijin Hospital did (瑞金醫院)."),
        ("Ruijin Hospital did", "瑞金醫院。", "en", "Ruijin Hospital did (瑞金醫院)"),
        ("It was 瑞金醫院.", "瑞金醫院", "en", "It was 瑞金醫院."),
        ("It was 瑞金醫院 in truth.", "瑞金医院", "en", "It was 瑞金醫院 in truth."),
        ("是瑞金醫院。", "Ruijin Hospital", "zh-Hant", "是瑞金醫院（Ruijin Hospital）。"),
        ("是瑞金医院。", "Ruijin Hospital", "zh-Hant", "是瑞金醫院（Ruijin Hospital）。"),
        ("是瑞金醫院。", "Ruijin Hospital", "zh-Hans", "是瑞金医院（Ruijin Hospital）。"),
        # A sentence is no term; its names, which nothing confirms, need theirs beside them.
        (
            "It was made for the needs of one department.",
            "它是和一家醫院合作做出的，並且針對專科的需求共同打造。",
            "en",
            "It was made for the needs of one department.",
        ),
        (
            "Huawei made it with Renjin Hospital.",
            "華為和上海瑞金醫院合作做出RuiPath，並且針對專科的需求共同打造。",
            "en",
            "Huawei made it with Renjin Hospital (華為和上海瑞金醫院合作做出RuiPath，並且針對專科的需求共同打造).",
        ),
        (
            "Huawei made it with Ruijin Hospital.",
            "華為" * 40,
            "en",
            "Huawei made it with Ruijin Hospital.",
        ),
        # Of a term only the first sentence: what follows is comment.
        ("It was Ruijin. I hope this helps!", "瑞金", "en", "It was Ruijin (瑞金)."),
        # A translation is told whole, as far as its line goes.
        (
            "It is made for one department. It is new.\nI hope this helps!",
            "它是和一家醫院合作做出的，並且針對專科的需求共同打造，不久以前。",
            "en",
            "It is made for one department. It is new.",
        ),
        # Numbers are the same in any language.
        (
            "They did so in 1951.",
            "20世纪50年代",
            "en",
            "In the words of the source: “20世纪50年代”.",
        ),
        (
            "It cost 30 million pounds.",
            "3000万英镑",
            "en",
            "It cost 30 million pounds (3000万英镑).",
        ),
        (
            "It cost 3000 million pounds.",
            "3000 万英镑",
            "en",
            "In the words of the source: “3000 万英镑”.",
        ),
        ("It cost 30,000,000 pounds.", "3000万", "en", "It cost 30,000,000 pounds (3000万)."),
        (
            "花了1.2亿美元。",
            "120 million dollars",
            "zh-Hans",
            "花了1.2亿美元（120 million dollars）。",
        ),
        ("It was瑞金醫院.", "瑞金醫院", "en", "It was 瑞金醫院."),
        ("They did so in March.", "3月", "en", "They did so in March (3月)."),
        ("Eighty-four are listed.", "84個", "en", "Eighty-four are listed (84個)."),
        # Not in the language asked for, refused, or nothing.
        ("那是瑞金醫院。", "瑞金醫院", "en", "In the words of the source: “瑞金醫院”."),
        ("The hospital was Ruijin.", "Ruijin", "zh-Hant", "原文寫道：「Ruijin」。"),
        ("The sources do not say.", "瑞金", "en", "In the words of the source: “瑞金”."),
        ("The sky is blue.", "瑞金", "en", "In the words of the source: “瑞金”."),
        ("", "Ruijin", "zh-Hans", "原文写道：“Ruijin”。"),
    ],
)
def test_a_retelling_is_shown_with_its_term_or_not_at_all(
    written: str, claim: str, language: Language, shown: str
) -> None:
    assert retold(written, WHICH, claim, language) == shown


def test_a_number_of_the_question_may_be_repeated() -> None:
    question = "Which hospital was it in 2025?"
    assert (
        retold("In 2025 it was Ruijin.", question, "瑞金", "en") == "In 2025 it was Ruijin (瑞金)."
    )


RUIJIN = "華為和上海瑞金醫院合作做出RuiPath。"
MINDRAY = "邁瑞醫療與騰訊攜手開發重症醫療大模型。"


def test_an_english_question_over_a_chinese_text_is_answered_in_english_and_proven_in_chinese(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    engine.enqueue(
        "哪家医院与华为合作？", reading(RUIJIN, "上海瑞金医院"), "It was Shanghai Ruijin Hospital."
    )
    answer = make_bot(RUIJIN).ask(WHICH)
    assert answer.answer == "It was Shanghai Ruijin Hospital (上海瑞金醫院).[1]"
    assert answer.language == "en"
    assert answer.citations[0].quote == RUIJIN
    translating, asked, retelling = engine.prompts
    assert translating[-1].content == WHICH
    assert "原句" in asked[0].content or "中文" in asked[0].content
    assert WHICH in asked[-1].content and WHICH in retelling[-1].content


def test_a_chinese_question_over_an_english_text_is_answered_in_its_script(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    text = "Huawei built it together with Ruijin Hospital in Shanghai."
    engine.enqueue(
        "Which hospital worked with Huawei?",
        reading(text, "Ruijin Hospital"),
        "华为与瑞金医院合作。",
    )
    answer = make_bot(text).ask("華為與哪家醫院合作？")
    assert answer.answer == "華為與瑞金醫院合作（Ruijin Hospital）。[1]"
    assert answer.citations[0].quote == text


def test_what_is_not_proven_in_the_source_is_not_retold(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    engine.enqueue("哪家医院？", reading("北京的醫院很多很大。", "北京協和醫院"), "It was Peking.")
    answer = make_bot(RUIJIN).ask(WHICH)
    assert answer.abstained and answer.language == "en"
    assert len(engine.prompts) == 2


def test_a_sentence_that_answers_by_itself_is_retold_too(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    told = "Huawei made RuiPath together with Ruijin Hospital in Shanghai."
    engine.enqueue("哪家医院？", reading(RUIJIN, "北京協和醫院"), told)
    answer = make_bot(RUIJIN).ask(WHICH)
    assert answer.answer.startswith(told.rstrip(".")) and answer.answer.endswith("[1]")
    # Told from Simplified characters, which a small model reads better.
    assert to_language(RUIJIN.rstrip("。"), "zh-Hans") in engine.prompts[2][-1].content


def test_each_sentence_is_retold_with_its_own_marker(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(
        "谁和谁合作？",
        reading(f"{RUIJIN}\n{MINDRAY}", "上海瑞金醫院和華為合作。邁瑞醫療與騰訊合作。"),
        "Ruijin Hospital worked with Huawei.",
        "Mindray worked with Tencent.",
    )
    answer = make_bot(f"{RUIJIN}\n{MINDRAY}").ask("Who worked with whom?")
    assert answer.answer == (
        "Ruijin Hospital worked with Huawei (上海瑞金醫院和華為合作).[1]"
        " Mindray worked with Tencent (邁瑞醫療與騰訊合作).[2]"
    )


def test_each_sentence_of_a_translation_has_its_marker(
    make_bot: MakeBot, engine: FakeEngine
) -> None:
    long = RUIJIN.replace("合作", "合作，針對專科的需求")
    told = "Huawei worked with a hospital for the needs of departments. They made RuiPath."
    engine.enqueue("哪家医院？", reading(long, long), told)
    answer = make_bot(long).ask(WHICH)
    assert answer.answer == told.replace(".", ".[1]") and len(answer.citations) == 1


@pytest.mark.parametrize(
    ("written", "refusal"),
    [
        ("无", True),
        ("「無」。", True),
        ("None.", True),
        ("資料中沒有提到。", True),
        ("文章未说明原因。", True),
        ("無法確定。", True),
        ("The text does not mention it.", True),
        ("The sources do not say.", True),
        ("It is not stated in the article.", True),
        ("There is no information on that.", True),
        ("", False),
        ("無人機在2019年問世。", False),
        ("文章在2019年發表。", False),
        ("Nonetheless it was built.", False),
        ("The text was written in 1974.", False),
    ],
)
def test_what_counts_as_a_refusal(written: str, refusal: bool) -> None:
    assert refuses(written) == refusal


def test_a_term_is_told_in_a_sentence_and_a_sentence_is_translated() -> None:
    term = messages(WHICH, "瑞金醫院", "en")
    assert WHICH in term[-1].content and "瑞金醫院" in term[-1].content
    long = "華為和上海瑞金醫院合作做出RuiPath，並且針對專科的需求共同打造。"
    assert [message.content for message in messages(WHICH, long, "en")][-1:] == [long]
