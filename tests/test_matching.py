"""Answers against references: every case worked out by hand."""

from __future__ import annotations

import pytest

from ragbot.evaluation.matching import exact_match, f1, facts_held, has_fact, in_language
from ragbot.types import Language


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("一共84個場景。", "84"),
        ("一共八十四個場景。", "84"),
        ("There are eighty-four uses.", "84"),
        ("There are Eighty Four uses.", "八十四"),
        ("共84個", "eighty-four"),
        ("共有８４種", "84"),  # full width
        ("準確率是百分之八十四", "84"),
        ("1,234 people came", "1234"),
        ("1234人", "1,234"),
        ("三千五百萬元", "3500万"),
        ("35 million dollars", "三千五百万"),
        ("1.5 million", "1500000"),
        ("它佔3.50%", "3.5%"),
        ("in March 2023", "2023"),
        ("二〇二三年", "2023年"),
        ("三月宣布", "3月"),
        ("两百零五人", "205"),
        ("Med-PaLM scored well", "MedPaLM"),
        ("MED PALM", "Med-PaLM"),
        ("繁體字醫療", "医疗"),
        ("简体字医疗", "醫療"),
        ("臺灣", "台湾"),
        ("他叫威廉·瓊斯。", "威廉琼斯"),
        ("the stock surged", "surge"),  # a form may be the beginning of a word
        ("百度和百度云", "百度"),
        ("這是一百年的事", "百年"),  # a number in the answer, none in the form
        ("一些人說統一了", "統一"),
        ("重劍「聚焦」", "聚焦"),
        ("用AI做的", "AI"),
        ("3000万英镑", "3000"),  # as it is written
        ("3000万英镑", "30000000"),  # as it is meant
    ],
)
def test_a_fact_is_found_in_any_dress(answer: str, form: str) -> None:
    assert has_fact(answer, [form])


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("共184個", "84"),
        ("共840個", "84"),
        ("共84.5個", "84"),
        ("12.84", "84"),
        ("八十四", "四"),
        ("八十四", "80"),
        ("3 12", "312"),
        ("really and actually", "all"),  # not in the middle of a word
        ("she arose", " rose"),
        ("this is a default", "fault"),
        ("", "84"),
        ("沒有提到", "84"),
        ("三百五十萬", "3500万"),
        ("醫院", "医疗"),
        ("31日", "1日"),
        ("八千四百萬", "84"),
        ("3000万英镑", "300"),
        ("3000 million pounds", "3000"),
    ],
)
def test_what_only_looks_like_a_fact_is_none(answer: str, form: str) -> None:
    assert not has_fact(answer, [form])


def test_one_form_of_each_fact_is_enough() -> None:
    facts = [["Ruijin", "瑞金"], ["95", "九十五"], ["99"]]
    assert facts_held("上海瑞金醫院，九十五%以上", facts) == [True, True, False]


@pytest.mark.parametrize(
    ("answer", "reference", "lang", "exact", "overlap"),
    [
        # SQuAD: no case, punctuation, articles; words as bags.
        ("The cat.", "cat", "en", 1, 1),
        ("a big cat", "the cat", "en", 0, 2 * 1 / 3),
        ("cat dog dog", "dog cat", "en", 0, 2 * 2 / 5),  # a word counts as often as both have it
        ("dog", "cat", "en", 0, 0),
        ("", "cat", "en", 0, 0),
        ("the", "an", "en", 1, 1),  # nothing is left of either
        # CMRC: characters, whole Latin words and numbers; the longest common run.
        ("北京大學。", "北京大學", "zh-Hant", 1, 1),
        ("他在北京大學", "北京大學", "zh-Hant", 0, 2 * 4 / 10),
        ("北大京學", "北京大學", "zh-Hant", 0, 2 * 1 / 8),  # scattered characters do not add up
        ("是AI的", "AI", "zh-Hans", 0, 2 * 1 / 4),
        ("2023年", "2023", "zh-Hans", 0, 2 * 1 / 3),
        ("北京大学", "北京大學", "zh-Hant", 0, 2 * 3 / 8),  # CMRC does not fold scripts
        ("", "北京", "zh-Hant", 0, 0),
    ],
)
def test_exact_match_and_f1(
    answer: str, reference: str, lang: Language, exact: float, overlap: float
) -> None:
    assert exact_match(answer, reference, lang) == exact
    assert f1(answer, reference, lang) == pytest.approx(overlap)


@pytest.mark.parametrize(
    ("answer", "lang", "fits"),
    [
        ("華為在三月宣布。", "zh-Hant", True),
        ("华为在三月宣布。", "zh-Hant", False),
        ("华为在三月宣布。", "zh-Hans", True),
        ("華為在三月宣布。", "zh-Hans", False),
        ("三月。", "zh-Hant", True),  # the same in both scripts
        ("三月。", "zh-Hans", True),
        ("Huawei announced it in March.", "en", True),
        ("Huawei announced it in March.", "zh-Hant", False),
        ("華為在三月宣布。", "en", False),
        ("It is called RuiPath (瑞智).", "en", True),
        ("它叫RuiPath。", "zh-Hant", True),
        ("RuiPath", "zh-Hant", True),  # a name alone is of any language
        ("P ⊆ NP ⊆ PSPACE", "zh-Hans", True),
        ("It is called 瑞智.", "zh-Hant", False),
        ("84", "en", True),
    ],
)
def test_language_and_script(answer: str, lang: Language, fits: bool) -> None:
    assert in_language(answer, lang) is fits
