from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbot import text as t
from ragbot import words as w
from ragbot.types import Language


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("華為在什麼時候宣布成立醫療衛生軍團?", "zh-Hant"),
        ("华为在什么时候宣布成立医疗卫生军团?", "zh-Hans"),
        ("When did Huawei announce its medical corps?", "en"),
        ("RuiPath是誰做的？", "zh-Hant"),
        ("Google Health 为啥病人不买账？", "zh-Hans"),
        ("What does 重劍 mean?", "en"),
        ("Who founded 百度 and 騰訊?", "en"),
        ("Med-PaLM 得分?", "zh-Hans"),
        ("DeepSeek, Watson, RuiPath 誰開源?", "zh-Hant"),
        ("英國的 Department of Health and Social Care 是什麼？", "zh-Hant"),
        ("「The Cat in the Hat」是誰寫的？", "zh-Hant"),
        ("設 a、b 為整數，a 與 b 互質。", "zh-Hant"),  # no articles, these
        ("What does the title 「為什麼大模型有了流量」 mean?", "en"),
        ("What does 國家衛健委印發的參考指引 list?", "en"),
    ],
)
def test_the_language_of_a_question(question: str, language: Language) -> None:
    assert t.detect_language(question) == language


@pytest.mark.parametrize("default", ["zh-Hant", "zh-Hans"])
def test_what_both_scripts_write_alike_is_left_to_the_default(default: Language) -> None:
    assert t.detect_language("北京大学在哪里", default) == "zh-Hans"
    assert t.detect_language("北京在何方", default) == default


def test_a_text_without_letters_has_the_default_language() -> None:
    assert t.detect_language("42?", "en") == "en"
    assert t.detect_language("42?", "zh-Hant") == "zh-Hant"


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("华为组建医疗卫生军团", "zh-Hant", "華為組建醫療衛生軍團"),
        ("華為組建醫療衛生軍團", "zh-Hans", "华为组建医疗卫生军团"),
        ("華為為何在台灣後里", "zh-Hant", "華為為何在台灣後里"),  # already so: not touched
        ("华为 and RuiPath", "en", "华为 and RuiPath"),
        ("市长最多只能当四年", "zh-Hant", "市長最多只能當四年"),
        ("许多只鸟飞来", "zh-Hant", "許多隻鳥飛來"),
    ],
)
def test_script_conversion(text: str, language: Language, expected: str) -> None:
    assert t.to_language(text, language) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一句。兩句！三句？", ["一句。", "兩句！", "三句？"]),
        ("他說「好。」然後走了。", ["他說「好。」", "然後走了。"]),
        ("「你好嗎？」，他說。", ["「你好嗎？」，他說。"]),
        ("真的！！！好", ["真的！！！", "好"]),
        ("Dr. Smith paid 3.5 million. Why?", ["Dr. Smith paid 3.5 million.", "Why?"]),
        ("In the U.S. it rained. He left.", ["In the U.S. it rained.", "He left."]),
        ("See e.g. Fig. 3 and No. 5 there.", ["See e.g. Fig. 3 and No. 5 there."]),
        ('"Really?" he asked. "Yes!" He went.', ['"Really?" he asked.', '"Yes!"', "He went."]),
        ("然後。Dr. Lee 來了。End.", ["然後。", "Dr. Lee 來了。", "End."]),
        ("- one\n- two\nmore", ["- one", "- two\nmore"]),
        ("wrapped at\na margin. Next", ["wrapped at\na margin.", "Next"]),
        ("no stop at all", ["no stop at all"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in t.sentences(text)] == expected


@given(st.text())
def test_sentences_lose_only_white_space(text: str) -> None:
    spans = t.sentences(text)
    assert all(a < b for a, b in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("one", "other"),
    [("華為", "华为"), ("ＡＩ", "ai"), ("①", "1"), ("臺灣", "台湾"), ("Straße", "STRASSE")],
)
def test_folding_makes_alike(one: str, other: str) -> None:
    assert t.fold(one).text == t.fold(other).text


@given(st.text())
def test_every_folded_character_knows_where_it_was(text: str) -> None:
    folded = t.fold(text)
    assert len(folded.text) == len(folded.origin)
    assert list(folded.origin) == sorted(folded.origin)
    for index, origin in enumerate(folded.origin):
        assert folded.text[index] in t.fold(text[origin]).text


def test_a_folded_span_leads_back_to_the_text_as_written() -> None:
    written = "見ﬁg圖"
    folded = t.fold(written)
    start = folded.text.index("fi")
    assert written[slice(*folded.span(start, start + 2))] == "ﬁ"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RuiPath是誰做的", {"ruipath", "谁", "做"}),
        ("達到92.6%的ＡＩ", {"92.6", "ai"}),
        ("共1,024個", {"1,024"}),
        ("醫療衛生軍團", {"医疗", "卫生", "军团"}),
    ],
)
def test_words(text: str, expected: set[str]) -> None:
    assert expected <= set(w.words(text))


def test_words_of_both_scripts_are_the_same() -> None:
    assert w.words("華為組建醫療衛生軍團") == w.words("华为组建医疗卫生军团")


@pytest.mark.parametrize(
    ("text", "stated", "also_mentioned"),
    [
        ("84個場景", {"84"}, set()),
        ("八十四個場景", set(), {"84"}),
        ("3月", {"3"}, set()),
        ("in March", {"3"}, set()),
        ("it may be", set(), {"5"}),
        ("一百二十三", set(), {"123"}),
        ("二〇二三年", set(), {"2023"}),
        ("1,024.50 元", {"1024.5"}, set()),
        ("９２．６％", {"92.6"}, set()),
        ("eighty percent", set(), {"80"}),
        ("十幾個", set(), {"10"}),
        ("no number", set(), set()),
        ("3000万", {"30000000"}, {"3000"}),
        ("30 million", {"30000000"}, {"30"}),
        ("2千万人", {"20000000"}, set()),
        ("3.5万亿元", {"3500000000000"}, {"3.5"}),
        ("5千亿", {"500000000000"}, {"5"}),
        ("2" + "亿" * 500, {"2"}, set()),
    ],
)
def test_numbers(text: str, stated: set[str], also_mentioned: set[str]) -> None:
    assert w.stated_numbers(text) == stated
    assert w.mentioned_numbers(text) >= stated | also_mentioned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("總部設在中國深圳", {"中国", "深圳"}),
        ("It was Luke Kuechly who led", {"luke", "kuechly"}),
        ("The team led", set()),
        ("華為和RuiPath", {"ruipath"}),
        ("沒有名字的一句話", set()),
    ],
)
def test_names(text: str, expected: set[str]) -> None:
    assert expected <= w.names(text)
    assert bool(expected) == bool(w.names(text))
