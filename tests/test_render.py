"""Answers, documents and saved conversations: what is shown, and that it is text whatever it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from ragbot.types import Answer, Chunk, Citation, Document, Hit, Paragraph, Timings
from ragbot.verify import SavedAnswer
from ragbot.web.page.markup import escaped
from ragbot.web.page.reading import WHOLE, Spot, opened
from ragbot.web.page.render import View, answer_html, nearest_html, piece_html, reading_html, split
from ragbot.web.page.saving import as_json, copied, inert, markdown

EN, HANT = View("en"), View("zh-Hant")
TEXT = "蘋果一斤賣31元。香蕉一斤賣22元。"
QUOTE = TEXT[:9]
CITATION = Citation(1, "水果.txt", 1, 0, 9, QUOTE)


def hit(rank: int, text: str = TEXT, *, doc: str = "水果.txt", score: float = 0.95) -> Hit:
    return Hit(rank, score, Chunk(doc, rank, 0, len(text), text))


def answer(text: str = "蘋果31元。[1]", **fields: object) -> Answer:
    made = Answer(
        question="蘋果多少錢？",
        language="zh-Hant",
        answer=text,
        abstained=False,
        citations=(CITATION,),
        passages=(hit(1),),
        timings=Timings(10, 1000, 2345),
        confidence=0.874,
        queries=("蘋果多少錢？",),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """The text, the elements and the attributes of some HTML."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for other, value in self.attributes if other == name]


# --- sentences -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("甲。[1]乙。[2]", [("甲。", [1]), ("乙。", [2])]),
        ("甲。[1][2]乙。", [("甲。", [1, 2]), ("乙。", [])]),
        ("甲。乙。[1]", [("甲。", []), ("乙。", [1])]),
        ("A is. [1] B is.", [("A is.", [1]), ("B is.", [])]),
        ("最接近的內容見[1]。", [("最接近的內容見。", [1])]),
        ("甲[1]，乙[2]。", [("甲，乙。", [1, 2])]),
        ("甲。[7]", [("甲。", []), ("[7]", [])]),  # there is no source 7
        ("原文寫道：「甲。乙。」[1]", [("原文寫道：「甲。乙。」", [1])]),
        ("甲", [("甲", [])]),
        ("", []),
        ("[1]", []),
    ],
)
def test_markers_belong_to_the_sentence_they_end(
    text: str, expected: list[tuple[str, list[int]]]
) -> None:
    found = split(text, frozenset({1, 2}))
    assert [(one.text, [number for _, number in one.markers]) for one in found] == expected


def test_a_marker_inside_a_sentence_stays_where_it_was() -> None:
    assert split("最接近的內容見[1]。", frozenset({1}))[0].markers == ((7, 1),)


# --- answers ---------------------------------------------------------------------------------


def test_a_proven_sentence_has_its_marker_as_a_button() -> None:
    page = Reader(answer_html(answer(), EN))
    assert "source 1: 水果.txt, paragraph 1" in page.values("aria-label")
    assert QUOTE in page.values("data-quote")
    assert "said proven" in page.values("class")
    assert "not proven" not in page.text


def test_an_unproven_sentence_says_so_in_words() -> None:
    page = Reader(answer_html(answer("蘋果31元。[1]香蕉更便宜。"), HANT))
    assert page.values("class").count("said unproven") == 1
    assert page.text.count("未證實") == 1


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (EN, ["Sources", "paragraph 1", "score 0.95", "took 2.3 s", "87 % sure"]),
        (HANT, ["出處", "第 1 段", "相關度 0.95", "用時 2.3 秒", "把握 87 %"]),
        (View("zh-Hans"), ["出处", "第 1 段", "相关度 0.95", "用时 2.3 秒", "把握 87 %"]),
    ],
)
def test_sources_have_document_paragraph_score_and_quote(view: View, words: list[str]) -> None:
    page = Reader(answer_html(answer(), view))
    assert [word for word in [*words, "水果.txt", QUOTE] if word not in page.text] == []


def test_texts_are_in_their_own_language() -> None:
    english = Citation(1, "fruit.txt", 1, 0, 13, "Apples are $3")
    html = answer_html(answer(citations=(english,), passages=()), View("zh-Hans"))
    assert '<blockquote lang="en"' in html
    assert '<div class="told" lang="zh-Hant">' in html


def test_own_documents_are_named_so() -> None:
    own = Reader(answer_html(answer(), View("en", mine=True)))
    assert "your document" in own.text
    assert "source 1: your document 水果.txt, paragraph 1" in own.values("aria-label")
    assert "your document" not in Reader(answer_html(answer(), EN)).text


def test_what_was_not_used_is_folded_under_its_own_heading() -> None:
    passages = (
        hit(1),
        hit(2, "香蕉便宜。", doc="b.txt"),
        hit(3, "無關。", doc="c.txt", score=0.81),
    )
    page = Reader(answer_html(answer(passages=passages), EN))
    assert page.tags.count("details") == 1
    assert "Found but not used (1)" in page.text
    assert "b.txt" in page.text and "c.txt" not in page.text


def refusal(related: tuple[Citation, ...], passages: tuple[Hit, ...]) -> Answer:
    text = "這些文件沒有提到這個問題的答案。" + "".join("最接近的內容見[1]。" for _ in related)
    return answer(text, abstained=True, citations=(), related=related, passages=passages)


def test_a_refusals_related_source_is_no_proof() -> None:
    page = Reader(answer_html(refusal((CITATION,), (hit(1),)), EN))
    assert "Nearest, not a proof" in page.text and "Sources" not in page.text
    assert "nearest passage 1, not a proof: 水果.txt, paragraph 1" in page.values("aria-label")
    assert "sources related" in page.values("class")
    assert "said proven" not in page.values("class") and "not proven" not in page.text


def test_a_greeting_shows_no_source() -> None:
    page = Reader(answer_html(refusal((), (hit(1, score=0.9), hit(2))), EN))
    assert "水果.txt" not in page.text
    assert "ol" not in page.tags and "details" not in page.tags


def test_a_rewritten_question_is_shown() -> None:
    page = Reader(answer_html(answer(queries=("蘋果多少錢？", "What are apples?")), EN))
    assert "Searched for: What are apples?" in page.text
    assert "Searched for" not in Reader(answer_html(answer(), EN)).text


def test_lines_become_paragraphs() -> None:
    assert answer_html(answer("甲。[1]\n乙。[1]"), EN).count("<p><span") == 2


def test_what_is_said_so_far_and_what_is_read() -> None:
    assert Reader(piece_html("蘋果[1]\n\n香蕉")).tags == ["div", "p", "p"]
    assert piece_html(" \n") == ""
    page = Reader(reading_html([hit(n) for n in range(1, 7)], "en"))
    assert page.tags.count("li") == 5 and page.text.endswith("+2")


# --- everything is text ----------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</textarea><script>alert(1)</script>",
    "</style></template><b>x</b>",
    "![x](http://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "${alert(1)} {{constructor}} {{{value}}} `",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "<!-- --><![CDATA[x]]>",
    "a\0b\x1b[31m",
    "{} {0} {n} %s",
]
KNOWN_TAGS = set("div p span button section h3 ol li bdi blockquote details summary q mark".split())


def tricky(text: str) -> Answer:
    """An answer in which everything that others may write is that text."""
    quote = Citation(1, text, 1, 0, len(text), text)
    return answer(
        f"{text}。[1]{text}。",
        question=text,
        citations=(quote,),
        passages=(hit(1, text, doc=text), hit(2, text * 2, doc=text + "2")),
        queries=(text, text + "?"),
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("abstained", [False, True])
def test_no_text_becomes_markup(text: str, abstained: bool) -> None:
    made = tricky(text)
    if abstained:
        made = replace(made, abstained=True, related=made.citations, citations=())
    page = Reader(answer_html(made, EN))
    assert set(page.tags) <= KNOWN_TAGS
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    shown = text.replace("\0", "").replace("\x1b", "")
    assert shown in page.text and shown in page.values("data-quote")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_document_becomes_markup(text: str) -> None:
    document = Document(text, text, text, (Paragraph(1, 0, len(text), (text,)),))
    for quote in (text, "changed"):
        shown = opened({text: document}, Spot(text, 0, len(text), quote), "en")
        assert set(Reader(shown.html).tags) <= KNOWN_TAGS
        assert escaped(text) in shown.html
    assert set(Reader(opened({}, Spot(text, quote=text), "en").html).tags) <= KNOWN_TAGS
    assert set(Reader(piece_html(text)).tags) == {"div", "p"}
    assert set(Reader(reading_html([hit(1, doc=text)], "en")).tags) == {"li", "bdi", "span"}
    near = Reader(nearest_html(Citation(1, text, 1, 0, len(text), text), EN))
    assert set(near.tags) <= KNOWN_TAGS and near.text.startswith("Nearest sentence so far")


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200f", "\x07", "\x9b"])
def test_nothing_steers_the_text_around_it(mark: str) -> None:
    assert escaped(f"in{mark}voice.txt") == "invoice.txt"


def test_line_breaks_and_joiners_stay() -> None:
    assert escaped("a\n\tb\u200dc") == "a\n\tb\u200dc"


# --- documents -------------------------------------------------------------------------------


def document(*paragraphs: str, headings: Sequence[tuple[str, ...]] = ()) -> Document:
    rows, text = [], ""
    for number, paragraph in enumerate(paragraphs, start=1):
        above = headings[number - 1] if headings else ()
        rows.append(Paragraph(number, len(text), len(text) + len(paragraph), above))
        text += paragraph + "\n"
    return Document("d.txt", "A title", text, tuple(rows))


def test_the_quote_is_marked_in_the_whole_document() -> None:
    made = document("甲。", "乙。丙。丁。", "戊。")
    shown = opened({"d.txt": made}, Spot("d.txt", 5, 7, "丙。"), "zh-Hant")
    assert "乙。<mark>" in shown.html and "</mark>丁。" in shown.html
    assert "甲。" in shown.html and "戊。" in shown.html
    assert (shown.start, shown.end, shown.length) == (0, 13, 13)
    assert Reader(shown.html).values("data-paragraph") == ["1", "2", "3"]


def test_headings_stand_once_above_their_paragraphs() -> None:
    made = document("a", "b", "c", headings=[("One", "x"), ("One", "x"), ("One", "y")])
    page = Reader(opened({"d.txt": made}, Spot("d.txt"), "en").html)
    assert page.text.replace("paragraph", "") == "Onex1 1a2 2by3 3c"


@pytest.mark.parametrize(
    ("documents", "said"),
    [({}, "no longer here"), ({"d.txt": document("else")}, "has changed since")],
)
def test_a_quote_that_no_longer_stands_is_shown_by_itself(
    documents: dict[str, Document], said: str
) -> None:
    shown = opened(documents, Spot("d.txt", 0, 3, "甲。"), "en")
    assert said in shown.html and "甲。</blockquote>" in shown.html and "<mark>" not in shown.html


LONG = document(*(f"{number:06d} " + "字" * 493 for number in range(1000)))


def test_a_long_document_comes_in_parts_that_join() -> None:
    start = LONG.paragraphs[500].start
    middle = opened({"d.txt": LONG}, Spot("d.txt", start, start + 6, "000500"), "en")
    assert len(middle.html) < 2 * WHOLE and "<mark>" in middle.html
    before = opened({"d.txt": LONG}, Spot("d.txt", middle.start, part="before"), "en")
    after = opened({"d.txt": LONG}, Spot("d.txt", middle.end, part="after"), "en")
    assert before.end == middle.start and after.start == middle.end
    numbers = [
        number
        for part in (before, middle, after)
        for number in Reader(part.html).values("data-paragraph")
    ]
    assert numbers == [str(int(numbers[0]) + n) for n in range(len(numbers))]


def test_every_part_of_a_long_document_can_be_reached() -> None:
    at, parts = 0, []
    while at < len(LONG.text):
        part = opened({"d.txt": LONG}, Spot("d.txt", at, part="after"), "en")
        assert part.end > at
        parts.append(part)
        at = part.end
    numbers = [number for one in parts for number in Reader(one.html).values("data-paragraph")]
    assert numbers == [str(number) for number in range(1, 1001)]


def test_one_endless_paragraph_is_cut() -> None:
    endless = document("字" * 500_000)
    shown = opened({"d.txt": endless}, Spot("d.txt", 250_000, 250_003, "字字字"), "en")
    assert 30_000 < shown.end - shown.start < WHOLE and "<mark>" in shown.html


@pytest.mark.parametrize("spot", [Spot("d.txt", -5, 10**12, "x"), Spot("d.txt", 10**12, 0)])
def test_places_outside_the_document_do_no_harm(spot: Spot) -> None:
    assert opened({"d.txt": LONG}, spot, "en").length == len(LONG.text)


# --- saving ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "*a* _b_ `c` ~~d~~",
        "<https://a.org>",
        "[1](http://evil.example)",
        "[1]: http://evil.example\n\n[1]",
        "[a][1]\n\n[1]: x",
        "# a\n- b\n+ c\n1. d\n2) e\n> f",
        "a\n===",
        "a\n---",
        "|a|b|\n|-|-|\n|c|d|",
        "\\*a\\*",
    ],
)
def test_markdown_says_just_the_text(text: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(inert(text))
    inline = [child for token in tokens for child in token.children or [token]]
    assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close"}
    kinds = {"text", "text_special", "softbreak", "paragraph_open", "paragraph_close"}
    assert {child.type for child in inline} <= kinds
    read = "".join(child.content if "text" in child.type else "\n" for child in inline)
    assert read.split() == text.replace("\0", "").replace("\x1b", "").split()


def test_a_saved_conversation_reads_well() -> None:
    assert markdown([answer(), refusal((CITATION,), ())], "zh-Hant") == (
        "# ragbot 對話\n\n"
        "## 蘋果多少錢？\n\n"
        "蘋果31元。[1]\n\n"
        "- [1] 水果.txt，第 1 段: 蘋果一斤賣31元。\n\n"
        "## 蘋果多少錢？\n\n"
        "這些文件沒有提到這個問題的答案。最接近的內容見[1]。\n\n"
        "最接近的內容（不是證據）\n\n"
        "- [1] 水果.txt，第 1 段: 蘋果一斤賣31元。\n"
    )


def test_an_answer_is_copied_with_its_sources() -> None:
    assert copied(answer(), "en") == "蘋果31元。[1]\n\n[1] 水果.txt, paragraph 1: 蘋果一斤賣31元。"
    assert copied(answer("Hello.", citations=()), "en") == "Hello."


def test_saved_json_can_be_verified() -> None:
    saved = json.loads(as_json([answer(), refusal((CITATION,), ())]))
    assert [SavedAnswer.model_validate(one).abstained for one in saved] == [False, True]
    assert saved[0]["question"] == "蘋果多少錢？"
