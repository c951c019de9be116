from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ragbot import console
from ragbot.bot import RagBot
from ragbot.corpus import load_corpus
from ragbot.errors import ConfigError, CorpusError
from ragbot.evaluation.records import Cited, Record
from ragbot.types import Document
from ragbot.verify import SavedAnswer, read_answers, verdict, verdict_on
from tests.fakes import FakeEngine, nothing, reading

FIRST, SECOND = "蘋果一斤賣31元。香蕉一斤賣22元。", "Pears cost 40. Plums cost 50."
APPLES = {
    "marker": 1,
    "doc": "a.txt",
    "paragraph": 1,
    "start": 0,
    "end": 9,
    "quote": "蘋果一斤賣31元。",
}
PLUMS = {
    "marker": 2,
    "doc": "a.txt",
    "paragraph": 2,
    "start": 34,
    "end": 48,
    "quote": "Plums cost 50.",
}
SAVED = {"answer": "31元。[1]50。[2]", "abstained": False, "citations": [APPLES, PLUMS]}


def without_offsets(citation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: citation[name] for name in ("marker", "doc", "paragraph", "quote")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "corpus"
    path.mkdir()
    (path / "a.txt").write_text(f"{FIRST}\n{SECOND}", encoding="utf-8")
    return path


@pytest.fixture
def documents(folder: Path) -> dict[str, Document]:
    return {document.name: document for document in load_corpus(folder).documents}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def save(content: str | bytes) -> Path:
        path = tmp_path / "answer.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return save


def states(documents: Mapping[str, Document], **changed: Any) -> list[tuple[int | None, str]]:
    found = verdict([SavedAnswer.model_validate({**SAVED, **changed})], documents)
    return [(problem.marker, problem.state) for problem in found.problems]


def test_what_is_as_it_was_stands(documents: dict[str, Document]) -> None:
    assert states(documents) == []
    bare = [without_offsets(citation) for citation in (APPLES, PLUMS)]
    assert states(documents, citations=bare) == []


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"start": 1, "end": 10}, "moved"),
        ({"start": 0, "end": 5}, "moved"),
        ({"start": 10**30, "end": 10**30}, "moved"),
        ({"paragraph": 2}, "moved"),
        ({"paragraph": 99}, "moved"),
        ({"quote": "蘋果一斤賣32元。"}, "changed"),
        ({"quote": "香蕉一斤賣22元。\nPears cost 40."}, "changed"),  # no quote runs over two paragraphs
        ({"doc": "b.txt"}, "missing"),
        ({"doc": "../corpus/a.txt"}, "missing"),
    ],
)  # fmt: skip
def test_what_has_become_of_a_quote(
    documents: dict[str, Document], change: dict[str, Any], state: str
) -> None:
    assert states(documents, citations=[APPLES | change, PLUMS]) == [(1, state)]


@pytest.mark.parametrize(
    ("change", "state"), [({"paragraph": 2}, "moved"), ({"quote": "橘子"}, "changed")]
)
def test_without_offsets_the_paragraph_must_hold_it(
    documents: dict[str, Document], change: dict[str, Any], state: str
) -> None:
    assert states(documents, citations=[without_offsets(APPLES | change), PLUMS]) == [(1, state)]


def test_a_moved_quote_is_found_in_the_nearest_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One. Same.\nTwo.\nThree.\nFour.\nSame.\nSame.", encoding="utf-8")
    document = load_corpus(path).documents[0]
    citation = {"marker": 1, "doc": "a.txt", "paragraph": 4, "start": 1, "end": 6, "quote": "Same."}
    answer = SavedAnswer.model_validate({"answer": "[1]", "citations": [citation]})
    now = verdict([answer], {"a.txt": document}).problems[0].now
    assert now is not None and now.paragraph == 5
    assert document.text[now.start : now.end] == now.quote == "Same."


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"answer": "31元。[1]"}, [(2, "unused")]),
        ({"answer": "31元。[1][2][3]"}, [(3, "uncited")]),
        ({"answer": "31元。[1][2][0]"}, [(0, "uncited")]),
        ({"answer": "31元。[1][2][x][1, 2]【3】"}, []),
        ({"answer": "[1][2]", "citations": [APPLES, APPLES, PLUMS]}, [(1, "repeated")]),
        ({"answer": "31元。", "citations": []}, [(None, "unproven")]),
        ({"answer": "資料未提及", "abstained": True, "citations": []}, []),
        ({"answer": None, "abstained": None, "citations": []}, []),
    ],
)
def test_markers_and_citations_belong_together(
    documents: dict[str, Document], changed: dict[str, Any], expected: list[tuple[int | None, str]]
) -> None:
    assert states(documents, **changed) == expected


REFUSED = {"answer": "沒有提到。最接近的內容見[1]。", "abstained": True, "citations": []}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"related": [APPLES]}, []),
        ({"related": [without_offsets(APPLES)]}, []),
        ({"related": [APPLES], "answer": "[1][2]", "citations": [PLUMS]}, []),
        # Its quote has to stand, too, and its marker to be there.
        ({"related": [APPLES | {"start": 1, "end": 10}]}, [(1, "moved")]),
        ({"related": [APPLES | {"quote": "桃"}]}, [(1, "changed")]),
        ({"related": [APPLES | {"doc": "b.txt"}]}, [(1, "missing")]),
        ({"related": [PLUMS]}, [(1, "uncited"), (2, "unused")]),
        ({"related": [APPLES], "answer": "沒有提到。"}, [(1, "unused")]),
        ({"related": [APPLES, APPLES]}, [(1, "repeated")]),
        ({"related": [APPLES], "citations": [APPLES]}, [(1, "repeated")]),
        ({}, [(1, "uncited")]),
        # What only comes near proves no answer.
        ({"related": [APPLES], "abstained": False}, [(1, "uncited")]),
        ({"related": [APPLES], "abstained": None}, [(1, "uncited")]),
    ],
)
def test_a_refusal_may_name_what_comes_nearest(
    documents: dict[str, Document], changed: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    assert states(documents, **{**REFUSED, **changed}) == expected


def test_the_quotes_of_refusals_count(documents: dict[str, Document]) -> None:
    refusal = SavedAnswer.model_validate({**REFUSED, "related": [APPLES | {"quote": "桃"}]})
    found = verdict([refusal, SavedAnswer.model_validate(SAVED)], documents)
    assert (found.answers, found.quotes, found.fallen) == (2, 3, 1)


def test_what_the_bot_answers_stands(
    make_bot: Callable[..., RagBot], engine: FakeEngine, tmp_path: Path, saved: Callable[..., Path]
) -> None:
    bot = make_bot(f"{FIRST}\n{SECOND}")
    told = reading("蘋果一斤賣31元。", "蘋果一斤賣31元。")
    answers = []
    for question, translated, *read in (
        ("蘋果一斤賣多少？", "How much are apples?", told),
        ("蘋果一斤賣31元是去年嗎？", "Was it last year?", nothing(), nothing("en")),
        ("你好嗎？", "How are you?", nothing(), nothing("en")),
    ):
        engine.enqueue(translated, *read)
        answers.append(console.answer_json(bot.ask(question)))
    assert [(len(a["citations"]), len(a["related"])) for a in answers] == [(1, 0), (0, 1), (0, 0)]
    found = verdict_on(saved(json.dumps(answers)), tmp_path / "texts")
    assert (found.answers, found.quotes, found.problems) == (3, 2, ())


def test_the_records_of_an_evaluation_are_answers(folder: Path, saved: Callable[..., Path]) -> None:
    citations = tuple(Cited(**without_offsets(c), verbatim=True) for c in (APPLES, PLUMS))
    record = Record(id="a", question="?", lang="en", type="", answerable=True, citations=citations)
    asked = record.model_copy(update={"answer": SAVED["answer"], "abstained": False})
    bare = record.model_copy(update={"citations": ()})
    path = saved("".join(row.model_dump_json() + "\n" for row in (asked, bare, asked)))
    found = verdict_on(path, folder)
    assert (found.answers, found.quotes, found.problems) == (2, 4, ())


@pytest.mark.parametrize(
    "layout", ["{0}", "[{0}]", "[{0}, {0}]", "{0}\n{0}\n", "\ufeff {0} \r\n\n {0}", "[{0}][] [{0}]"]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_answers_come_one_after_another_or_in_lists(
    saved: Callable[..., Path], layout: str, indent: int | None
) -> None:
    text = json.dumps(SAVED, ensure_ascii=False, indent=indent)
    answers = read_answers(saved(layout.format(text)))
    assert answers == [SavedAnswer.model_validate(SAVED)] * layout.count("{0}")


def citing(**change: Any) -> str:
    return json.dumps({**SAVED, "citations": [APPLES | change]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no answer"),
        ("[]", "holds no answer"),
        ('{"answer": null, "citations": []}', "holds no answer"),
        ("**問題**\n\n答案[1]", "is not JSON"),
        (json.dumps(SAVED)[:-9], "is not JSON"),
        (json.dumps(SAVED) + "\n{", "is not JSON .*line 2"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        (json.dumps(SAVED).encode("utf-16"), "is not UTF-8 text"),
        ("蘋果".encode("big5"), "is not UTF-8 text"),
        (b" " * (64 << 20) + b"{} ", "more than 64 MB"),
        ("5", "Number 1 .*no object"),
        (json.dumps([SAVED, [SAVED]]), "Number 2 .*no object"),
        ("{}", "answer: Field required"),
        ('{"answer": "x"}', "citations: Field required"),
        ('{"answer": 5, "citations": []}', "answer: .*valid string"),
        ('{"answer": "x", "abstained": "no", "citations": []}', "abstained: "),
        ('{"answer": "x", "citations": {}}', "citations: "),
        ('{"answer": "x", "citations": [1]}', "citations.0: "),
        (citing(start="x"), "citations.0.start: .*valid integer"),
        (citing(start="0"), "citations.0.start: .*valid integer"),
        (citing(start=0.0), "citations.0.start: .*valid integer"),
        (citing(start=True), "citations.0.start: .*valid integer"),
        (citing(start=-1), "citations.0.start: .*greater than or equal to 0"),
        (citing(end=-1), "citations.0.end: .*greater than or equal to 0"),
        (citing(start=10), "citations.0: start lies behind end"),
        (citing(start=None), "citations.0: start and end belong together"),
        (citing(marker=0), "citations.0.marker: "),
        (citing(paragraph="1"), "citations.0.paragraph: "),
        (citing(paragraph=0), "citations.0.paragraph: "),
        (citing(doc=""), "citations.0.doc: "),
        (citing(doc=None), "citations.0.doc: "),
        (citing(quote=" "), "citations.0: the quote is empty"),
        (citing(quote=["x"]), "citations.0.quote: "),
        (citing(quote="\ud800"), "citations.0.quote: "),
        (citing(doc="\ud800"), "citations.0.doc: "),
        (json.dumps({**SAVED, "related": 5}), "related: "),
        (json.dumps({**SAVED, "related": [APPLES | {"marker": 0}]}), "related.0.marker: "),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_sentence_with_a_remedy(
    saved: Callable[..., Path], content: str | bytes, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_answers(saved(content))
    told = str(caught.value)
    assert "\n" not in told and "answer.json" in told
    assert any(remedy in told for remedy in ("ask --json", "save it as that", "give it in parts"))


def test_a_file_or_a_corpus_that_is_not_there(tmp_path: Path, saved: Callable[..., Path]) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_answers(path)
    with pytest.raises(CorpusError, match="nowhere"):
        verdict_on(saved(json.dumps(SAVED)), tmp_path / "nowhere")


def test_many_answers_are_read_in_no_time(saved: Callable[..., Path]) -> None:
    path = saved((json.dumps(SAVED) + "\n") * 20_000)  # seconds are tens of them when not linear
    assert len(read_answers(path)) == 20_000


def test_no_model_is_needed(folder: Path, saved: Callable[..., Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from ragbot.verify import verdict_on;"
        f"verdict_on(Path({str(saved(json.dumps(SAVED)))!r}), Path({str(folder)!r}));"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "onnxruntime", "faiss", "jieba", "numpy", "ragbot.index"}
    assert heavy.isdisjoint(done.stdout.split())


# --- what is printed -------------------------------------------------------------------------


def printed(
    documents: Mapping[str, Document], capsys: pytest.CaptureFixture[str], *answers: Any
) -> list[str]:
    answered = [SavedAnswer.model_validate(answer) for answer in answers]
    console.print_verdict(verdict(answered, documents))
    return capsys.readouterr().out.splitlines()


def test_a_line_a_problem_and_one_that_counts(
    documents: dict[str, Document], capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"answer": "資料未提及", "abstained": True, "citations": []}
    assert printed(documents, capsys, refusal) == ["0 quotes in 1 answer: 0 stand."]
    assert printed(documents, capsys, SAVED) == ["2 quotes in 1 answer: 2 stand."]
    gone = SAVED | {"citations": [APPLES | {"quote": "桃" * 90}, PLUMS]}
    assert printed(documents, capsys, gone) == [
        f"[1] a.txt, paragraph 1: no paragraph of it holds the quote any more: {'桃' * 80}…",
        "2 quotes in 1 answer: 1 stands, 1 does not.",
    ]
    within = SAVED | {"citations": [APPLES | {"start": 1, "end": 10}, PLUMS | {"paragraph": 1}]}
    missing = {"answer": "[0][1]", "citations": [APPLES | {"doc": "b.txt"}, PLUMS]}
    unproven = {"answer": "31", "citations": []}
    assert printed(documents, capsys, SAVED, within, missing, unproven) == [
        "answer 2 [1] a.txt, paragraph 1: moved within paragraph 1: 蘋果一斤賣31元。",
        "answer 2 [2] a.txt, paragraph 1: moved to paragraph 2: Plums cost 50.",
        "answer 3 [1] b.txt, paragraph 1: the corpus has no such document: 蘋果一斤賣31元。",
        "answer 3 [0]: it has no citation",
        "answer 3 [2]: it has a citation and is not in the answer",
        "answer 4: it is no refusal and cites nothing",
        "6 quotes in 4 answers: 3 stand, 3 do not; 3 other problems.",
    ]


def test_what_an_answer_holds_does_not_steer_the_terminal(
    documents: dict[str, Document], capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = APPLES | {"doc": "\x1b[2J\n[red]x[/red]", "quote": ":cat:\u2028\x07\x9b31m"}
    lines = printed(documents, capsys, {"answer": "[1]", "citations": [hostile]})
    assert len(lines) == 2
    assert "[red]x[/red], paragraph 1" in lines[0] and ":cat:" in lines[0]
    assert all(char.isprintable() for line in lines for char in line)
