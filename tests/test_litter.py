from __future__ import annotations

import pytest

from ragbot.litter import litter_lines

BODY = [
    "醫院引進大模型之後，醫生的工作方式正在改變，但是成效還需要時間檢驗。",
    "專家認為，真正的難點在於數據、流程和責任的劃分，而不在模型本身。",
    "The hospital says that it will publish the results of the trial next year.",
]
PAGES = {
    "simplified": [
        "-",
        "人工智能",
        "+关注",
        "阅读 ",
        "1024次",
        "评论(3)",
        "推荐阅读",
        "新款手机发布",
    ],
    "english": [
        "Tags",
        "#health",
        "#ai",
        "12 Comments",
        "Share (4)",
        "»",
        "Ten tips for a better sleep",
    ],
    "traditional": ["分享", "+追蹤", "+追蹤", "87則留言", "2,301瀏覽", "延伸閱讀", "明天天氣晴"],
}
INNOCENT = {
    "recipe": [
        "Ingredients",
        "3 eggs",
        "200 g flour",
        "2 spoons sugar",
        "1 pinch of salt",
        "50 ml milk",
    ],
    "prices": ["蘋果 12元", "香蕉 8元", "橘子 9元", "西瓜 30元", "葡萄 25元", "芒果 18元"],
    "poem": ["床前明月光", "疑是地上霜", "舉頭望明月", "低頭思故鄉", "李白", "靜夜思"],
    "address": [
        "審核編輯 黃宇",
        "Example Street 5",
        "Springfield",
        "Phone 555 0100",
        "Fax 555 0101",
    ],
    "facts": ["Population: 5,000", "Area: 20 km", "Founded: 1850", "Mayor: none", "Code: 4711"],
    "headings": ["前言", "方法", "結果", "討論", "結論", "致謝"],
    "refrain": ["歸去來兮", "田園將蕪", "歸去來兮", "胡不歸", "歸去來兮", "悟已往之不諫"],
}


@pytest.mark.parametrize("page", PAGES)
def test_a_copied_pages_tail_is_left_out(page: str) -> None:
    lines = BODY * 3 + PAGES[page]
    litter = litter_lines(lines)
    assert set(litter) <= set(range(len(BODY) * 3, len(lines)))
    assert len(litter) >= len(PAGES[page]) - 1
    assert all("after the text" in reason for reason in litter.values())


@pytest.mark.parametrize("page", PAGES)
def test_and_its_head(page: str) -> None:
    lines = [*reversed(PAGES[page]), *BODY * 3]
    litter = litter_lines(lines)
    assert len(litter) >= len(PAGES[page]) - 1
    assert max(litter) < len(PAGES[page])


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_is_kept(text: str) -> None:
    assert litter_lines(BODY * 3 + INNOCENT[text]) == {}
    assert litter_lines(INNOCENT[text] + BODY * 3) == {}
    assert litter_lines(INNOCENT[text]) == {}


def test_a_byline_between_text_and_litter_is_kept() -> None:
    lines = [*BODY * 3, "責任編輯 王小明", *PAGES["simplified"]]
    assert len(BODY) * 3 not in litter_lines(lines)


def test_no_rule_may_take_most_of_a_text() -> None:
    assert litter_lines(["短文。", *PAGES["simplified"] * 3]) == {}


def test_litter_in_the_middle_is_not_looked_for() -> None:
    assert litter_lines([*BODY, *PAGES["simplified"], *BODY]) == {}


def test_nothing_is_left_out_of_nothing() -> None:
    assert litter_lines([]) == {}
