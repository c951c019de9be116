"""Question sets: what is understood, what is refused, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragbot.errors import ConfigError
from ragbot.evaluation.questions import Gold, Question, Selection, load_questions, select
from tests.conftest import SHARED, needs_shared


def written(tmp_path: Path, text: str, name: str = "q.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*fields: dict[str, object]) -> str:
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in fields)


def test_everything_the_format_has_is_understood(tmp_path: Path) -> None:
    line = {
        "id": "a",
        "lang": "zh-Hant",
        "type": "followup",
        "question": "那是哪一年？",
        "history": [
            {"role": "user", "content": "誰建的？"},
            {"role": "assistant", "content": "他。[1]"},
        ],
        "answerable": True,
        "gold_paragraphs": [3, 4],
        "gold": [{"doc": "b.txt", "paragraph": 1}],
        "must_include": [["1987", "七十六年"], ["秋"]],
        "must_not_include": ["1978"],
        "reference_answer": "1987年秋天。",
        "source": "a field of somebody's own",
    }
    (question,) = load_questions(written(tmp_path, lines(line)))
    assert question.gold == (Gold(doc="b.txt", paragraph=1), Gold(paragraph=3), Gold(paragraph=4))
    assert question.must_include == (("1987", "七十六年"), ("秋",))
    assert [turn.role for turn in question.history] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Line 2 .* is not JSON"),
        ('{"question": "?a"}', "Line 2 .*: id: Field required"),
        ('{"id": "x", "question": ""}', "Line 2 .*: question: .*empty"),
        ('{"id": "x", "question": "???"}', "Line 2 .*: question: .*empty"),
        ('{"id": "x", "question": "a\\u0000b"}', "Line 2 .*: question: .*control characters"),
        ('{"id": "x"}', "Line 2 .*: question: Field required"),
        ('{"id": "x", "question": "a?", "lang": "fr"}', "Line 2 .*: lang"),
        ('{"id": "x", "question": "a?", "gold_paragraphs": [0]}', "Line 2 .*: gold"),
        ('{"id": "x", "question": "a?", "gold_paragraphs": 3}', "Line 2 .*gold_paragraphs"),
        ('{"id": "x", "question": "a?", "must_include": ["84"]}', "Line 2 .*: must_include"),
        (
            '{"id": "x", "question": "a?", "must_include": [["。"]]}',
            "Line 2 .*: must_include: each",
        ),
        ('{"id": "x", "question": "a?", "history": [{"role": "system"}]}', "Line 2 .*: history"),
        ('{"id": "a", "question": "a?"}', "Line 2 .*'a' stands twice"),
        ("[]", "Line 2"),
        ("7", "Line 2"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, '{"id": "a", "question": "a?"}\n' + line)
    with pytest.raises(ConfigError, match=said):
        load_questions(path)


def test_what_a_set_does_not_say_is_left_open(tmp_path: Path) -> None:
    bare, gold, facts, told = load_questions(
        written(
            tmp_path,
            lines(
                {"id": "a", "question": "誰？"},
                {"id": "b", "question": "who?", "gold_paragraphs": [1]},
                {"id": "c", "question": "谁来？", "must_include": [["他"]]},
                {"id": "d", "question": "who?", "answerable": False, "gold_paragraphs": []},
            ),
        )
    )
    assert [q.answerable for q in (bare, gold, facts, told)] == [None, True, True, False]
    assert [q.lang for q in (bare, gold, facts)] == ["zh-Hant", "en", "zh-Hans"]


def test_a_csv_needs_one_column_only(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeffquestion,lang\n"Who, then?",\n\n誰？,zh-Hant\n', "q.csv")
    assert [(q.id, q.question, q.lang) for q in load_questions(path)] == [
        ("q1", "Who, then?", "en"),
        ("q2", "誰？", "zh-Hant"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,text\n1,who?", "no column named question"),
        ("question\n\n", "no questions"),
        ('question\n"who', "is not CSV"),
        ("question,lang\nwho?,xx", "Line 2 .*lang"),
        ("id,question\na,who?\na,when?", "Line 3 .*'a' stands twice"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_questions(written(tmp_path, text, "q.csv"))


def test_a_bare_list_is_a_question_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "Who?\n\n  誰？  \r\n", "q.txt")
    assert [(q.id, q.question) for q in load_questions(path)] == [("q1", "Who?"), ("q2", "誰？")]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"", b"\n\n"])
def test_no_text_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"UTF-8|no questions"):
        load_questions(path)


def made(*langs: str) -> list[Question]:
    return [
        Question.model_validate(
            {"id": str(n), "question": "who?", "lang": lang, "type": f"t{n % 2}"}
        )
        for n, lang in enumerate(langs)
    ]


def test_a_limit_draws_by_the_seed_and_keeps_the_order() -> None:
    questions = made(*["en"] * 50)
    drawn = select(questions, Selection(limit=10, seed=3))
    assert drawn == select(questions, Selection(limit=10, seed=3))
    assert drawn != select(questions, Selection(limit=10, seed=4))
    assert drawn == sorted(drawn, key=lambda q: int(q.id))
    assert select(questions, Selection(limit=99)) == questions


def test_types_and_languages_choose() -> None:
    questions = made("en", "zh-Hant", "en", "zh-Hans")
    assert [q.id for q in select(questions, Selection(langs=("en",)))] == ["0", "2"]
    assert [q.id for q in select(questions, Selection(types=("t1",), langs=("zh-Hans",)))] == ["3"]
    with pytest.raises(
        ConfigError, match="No question has langs fr: there are en, zh-Hans, zh-Hant"
    ):
        select(questions, Selection(langs=("fr",)))
    with pytest.raises(ConfigError, match="both"):
        select(questions, Selection(types=("t0",), langs=("zh-Hans",)))


@needs_shared
@pytest.mark.parametrize("path", sorted(SHARED.glob("*/*.jsonl")), ids=lambda path: path.stem)
def test_the_shared_sets_load(path: Path) -> None:
    assert len(load_questions(path)) == sum(1 for _ in path.open(encoding="utf-8"))
