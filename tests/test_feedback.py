"""Ratings: kept once each, shared by threads and processes, read again as a question set."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import Gold, RatedQuestion, Selection, load_questions, select
from ragbot.evaluation.rated import TABLE, VERSION
from ragbot.evaluation.run import Evaluation, Plan
from ragbot.evaluation.scoring import Judges
from ragbot.types import Answer, Citation, Message, Timings
from ragbot.web.feedback import LONGEST_REMARK, Feedback, Rated
from tests.fakes import FakeEngine, nothing, reading

NOON = datetime(2031, 5, 1, 12, tzinfo=timezone.utc)
QUOTE = Citation(1, "橋.txt", 2, 5, 9, "長430米")
ANSWER = Answer(
    question="橋有多長？",
    language="zh-Hant",
    answer="橋長430米。[1]由海法人設計。[2]",
    abstained=False,
    citations=(QUOTE, Citation(2, "人.txt", 1, 0, 3, "海法人"), replace(QUOTE, marker=3)),
    passages=(),
    timings=Timings(1, 2, 3),
    confidence=0.83,
)
REFUSAL = replace(ANSWER, answer="文件沒有說。", abstained=True, citations=())


def rated(id: str = "a1", **changes: Any) -> Rated:
    return replace(Rated(id, ANSWER, "up", when=NOON), **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "feedback.sqlite"


@pytest.fixture
def feedback(path: Path) -> Feedback:
    return Feedback(path)


def kept(path: Path) -> list[RatedQuestion]:
    questions = load_questions(path)
    assert all(isinstance(question, RatedQuestion) for question in questions)
    return [question for question in questions if isinstance(question, RatedQuestion)]


def rows(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        return [dict(row) for row in file.execute(f"SELECT * FROM {TABLE} ORDER BY id")]


# --- keeping ---------------------------------------------------------------------------------


def test_all_of_a_rating_is_kept(feedback: Feedback, path: Path) -> None:
    talk = (Message("system", "!"), Message("user", "誰？"), Message("assistant", "她。[1]"))
    feedback.record(rated(verdict="down", remark="  錯了,\r\n是340\x00米 ", history=talk))
    (row,) = rows(path)
    assert (row["verdict"], row["remark"]) == ("down", "錯了,\n是340米")
    assert row["rated_at"] == "2031-05-01T12:00:00+00:00"
    assert row["confidence"] == 0.83
    (question,) = kept(path)
    assert question.messages == list(talk[1:])


def test_a_second_rating_takes_the_place_of_the_first(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    feedback.record(rated("a2"))
    feedback.record(rated(verdict="down", remark="no", answer=REFUSAL))
    assert [(row["id"], row["verdict"], row["answer"]) for row in rows(path)] == [
        ("a1", "down", REFUSAL.answer),
        ("a2", "up", ANSWER.answer),
    ]


def test_a_rating_can_be_withdrawn(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    feedback.record(rated("a2"))
    feedback.withdraw("a1")
    feedback.withdraw("a1")
    assert [row["id"] for row in rows(path)] == ["a2"]


def test_now_is_when_it_is_rated(feedback: Feedback, path: Path) -> None:
    feedback.record(rated(when=None))
    age = datetime.now(timezone.utc) - datetime.fromisoformat(rows(path)[0]["rated_at"])
    assert timedelta(0) <= age < timedelta(minutes=5)


@pytest.mark.parametrize(
    "text", ["'); DROP TABLE ratings; --", '"', "%s?:id", "<script>", "\\u0000"]
)
def test_text_of_others_is_only_text(feedback: Feedback, path: Path, text: str) -> None:
    answer = replace(ANSWER, question=f"Who is {text}", answer=text)
    feedback.record(rated(answer=answer, remark=text, history=(Message("user", text),)))
    (row,) = rows(path)
    assert (row["question"], row["answer"], row["remark"]) == (f"Who is {text}", text, text)
    assert kept(path)[0].messages == [Message("user", text)]


def test_half_characters_harm_nothing(feedback: Feedback, path: Path) -> None:
    talk = (Message("user", "half \ud800"),)
    feedback.record(
        rated(remark="a\ud800b", history=talk, answer=replace(ANSWER, answer="c\udfffd"))
    )
    assert [(row["remark"], row["answer"]) for row in rows(path)] == [("ab", "cd")]
    assert "half" in kept(path)[0].model_dump_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "a\0b?"},
        {"question": "half \ud800?"},
        {"question": "?"},
        {"question": "w" * 2001},
        {"language": "fr"},
        {"citations": (replace(QUOTE, paragraph=0),)},
        {"citations": (replace(QUOTE, doc="\ud800"),)},
        {"answer": "x" * 100_001},
        {"citations": (QUOTE,) * 5000},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_forged_answer_spoils_no_question_set(
    feedback: Feedback, path: Path, changes: dict[str, Any]
) -> None:
    feedback.record(rated())
    with pytest.raises(ConfigError, match="rate one that was"):
        feedback.record(rated("a2", answer=replace(ANSWER, **changes)))
    assert [question.id for question in kept(path)] == ["a1"]


@pytest.mark.parametrize(("said", "kept_as"), [(float("nan"), 0), (-3.0, 0), (float("inf"), 1)])
def test_a_confidence_is_a_share(
    feedback: Feedback, path: Path, said: float, kept_as: float
) -> None:
    feedback.record(rated(answer=replace(ANSWER, confidence=said)))
    assert rows(path)[0]["confidence"] == kept_as


@pytest.mark.parametrize("id", ["", "a b", "a'", "x" * 65, "橋", "\ud800"])
def test_an_id_is_letters_and_digits(feedback: Feedback, path: Path, id: str) -> None:
    with pytest.raises(ConfigError, match="no answer's id"):
        feedback.record(rated(id))
    with pytest.raises(ConfigError, match="no answer's id"):
        feedback.withdraw(id)
    assert rows(path) == []


def test_a_remark_has_an_end(feedback: Feedback, path: Path) -> None:
    feedback.record(rated(remark="字" * LONGEST_REMARK))
    with pytest.raises(ConfigError, match=r"2,001 characters: shorten it to 2,000"):
        feedback.record(rated(remark="字" * (LONGEST_REMARK + 1)))
    assert len(rows(path)[0]["remark"]) == LONGEST_REMARK, "the one before stays"


def test_a_long_talk_keeps_its_end(feedback: Feedback, path: Path) -> None:
    talk = tuple(Message("user", f"{number} " + "x" * 5000) for number in range(30))
    feedback.record(rated(history=talk))
    messages = kept(path)[0].messages
    assert [message.content.split()[0] for message in messages] == [str(n) for n in range(22, 30)]
    assert {len(message.content) for message in messages} == {4000}


def test_nothing_of_a_visitors_own_documents_outlasts_him(feedback: Feedback, path: Path) -> None:
    answer = replace(ANSWER, answer="my secret", citations=(replace(QUOTE, quote="my secret"),))
    talk = (Message("assistant", "another secret"),)
    feedback.record(rated(answer=answer, history=talk, own=True, remark="good"))
    feedback.record(rated("a2"))
    assert "secret" not in repr(rows(path))
    assert [row["remark"] for row in rows(path)] == ["good", ""]
    assert [question.id for question in kept(path)] == ["a2"], "it is asked of the corpus alone"


# --- the file --------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone(feedback: Feedback, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_what_is_there_is_gone_on_with(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    Feedback(path).record(rated("a2"))
    assert len(rows(path)) == 2


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def scribbled(data: bytes) -> bytes:
    return data[:4096] + b"\xaa" * 4096 + data[8192:]


@pytest.mark.parametrize(
    "damage", [torn, scribbled, lambda data: b"SQLite format 3\0" + b"\xff" * 5000, lambda data: b"no"]
)  # fmt: skip
def test_a_damaged_file_is_told_at_once(
    feedback: Feedback, path: Path, damage: Callable[[bytes], bytes]
) -> None:
    for number in range(50):
        feedback.record(rated(f"a{number}", remark="x" * 500))
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"damaged.*move the file away"):
        Feedback(path)
    assert path.read_bytes() == damaged, "what may be mended is not touched"


@pytest.mark.parametrize(
    ("pragma", "said"),
    [
        (f"user_version = {VERSION + 1}", "of form 2, this ragbot writes 1"),
        ("application_id = 7", "another program's"),
    ],
)
def test_another_kind_of_file_is_left_alone(path: Path, pragma: str, said: str) -> None:
    Feedback(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA {pragma}")
    with pytest.raises(StoreError, match=said):
        Feedback(path)
    with pytest.raises(ConfigError, match=r"of form 2, this ragbot reads 1|holds no ratings"):
        load_questions(path)


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match="another program's"):
        Feedback(path)


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "below.sqlite"):
        with pytest.raises(StoreError, match="name another file"):
            Feedback(place)


def test_a_file_that_is_taken_away_is_begun_anew(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    path.rename(path.with_name("old.sqlite"))
    feedback.record(rated("a2"))
    assert [row["id"] for row in rows(path)] == ["a2"]


def test_a_file_damaged_meanwhile_costs_one_sentence(feedback: Feedback, path: Path) -> None:
    path.write_bytes(b"not a database at all")
    with pytest.raises(StoreError, match="damaged"):
        feedback.record(rated())


def test_threads_share_it(path: Path) -> None:
    failed: list[BaseException] = []

    def rate(number: int) -> None:
        try:
            feedback = Feedback(path)  # each makes the file, too
            for turn in range(5):
                feedback.record(rated(f"a{number}-{turn}"))
                feedback.record(rated("shared", remark=f"{number}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert len(rows(path)) == 6 * 5 + 1


def rate_each(folder: Path, name: str, together: Barrier) -> None:
    for number in range(40):
        together.wait(30)
        Feedback(folder / str(number)).record(rated(name))


@pytest.mark.apart
def test_processes_share_it(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    together = spawning.Barrier(3)
    running = [
        spawning.Process(target=rate_each, args=(tmp_path, name, together)) for name in "abc"
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert all(len(rows(tmp_path / str(number))) == 3 for number in range(40))


# --- as a question set -----------------------------------------------------------------------


def test_a_thumb_up_vouches_for_the_answer(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    (question,) = kept(path)
    assert (question.id, question.question, question.lang) == ("a1", "橋有多長？", "zh-Hant")
    assert question.answerable is True
    assert question.reference_answer == "橋長430米。 由海法人設計。"
    assert question.gold == (Gold(doc="人.txt", paragraph=1), Gold(doc="橋.txt", paragraph=2))


def test_a_thumb_up_for_a_refusal_says_that_there_is_no_answer(
    feedback: Feedback, path: Path
) -> None:
    feedback.record(rated(answer=REFUSAL))
    (question,) = kept(path)
    assert (question.answerable, question.gold, question.reference_answer) == (False, (), "")


@pytest.mark.parametrize(
    ("answer", "wrong"), [(ANSWER, ("橋長430米。 由海法人設計。",)), (REFUSAL, ())]
)
def test_a_thumb_down_says_only_what_is_wrong(
    feedback: Feedback, path: Path, answer: Answer, wrong: tuple[str, ...]
) -> None:
    feedback.record(rated(verdict="down", answer=answer, remark="是340米"))
    (question,) = kept(path)
    assert (question.answerable, question.gold, question.reference_answer) == (None, (), "")
    assert (question.must_not_include, question.remark) == (wrong, "是340米")


def test_thumbs_are_types_in_the_order_in_which_they_came(feedback: Feedback, path: Path) -> None:
    for number, verdict in enumerate(("down", "up", "down")):
        when = NOON - timedelta(hours=number)
        feedback.record(rated(f"a{number}", verdict=verdict, when=when))
    questions = load_questions(path)
    assert [question.id for question in questions] == ["a2", "a1", "a0"]
    assert [one.id for one in select(questions, Selection(types=("down",)))] == ["a2", "a0"]


def test_it_is_read_while_it_is_written(feedback: Feedback, path: Path) -> None:
    feedback.record(rated())
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(f"DELETE FROM {TABLE}")
        assert len(kept(path)) == 1
        writer.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no ratings"),
        (b"no database at all, but text of some length", "damaged"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_without_ratings_is_one_sentence(
    tmp_path: Path, data: bytes | None, said: str
) -> None:
    path = tmp_path / "x.sqlite"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        load_questions(path)
    assert path.exists() == (data is not None), "a slip of the name makes no file"


def test_a_file_that_nobody_rated_in_yet(feedback: Feedback, path: Path) -> None:
    with pytest.raises(ConfigError, match="no questions"):
        load_questions(path)


@pytest.mark.parametrize("column", ["history", "citations"])
def test_a_row_that_was_tampered_with_is_one_sentence(
    feedback: Feedback, path: Path, column: str
) -> None:
    feedback.record(rated())
    for value in ("{", "null", '[{"x": 1}]', "[7]"):
        with closing(sqlite3.connect(path)) as file, file:
            file.execute(f"UPDATE {TABLE} SET {column} = ?", [value])
        with pytest.raises(ConfigError, match=r"damaged|Line 1 of"):
            load_questions(path)


def test_it_can_be_evaluated(
    feedback: Feedback, path: Path, make_bot: Callable[..., RagBot], engine: FakeEngine
) -> None:
    bot = make_bot("青山橋長430公尺，2016年完工。", "公司在台北，有四十個員工。")
    engine.enqueue(reading("青山橋長430公尺，2016年完工。", "青山橋長430公尺。"), *[nothing()] * 2)
    feedback.record(rated(answer=bot.ask("青山橋有多長？")))
    feedback.record(rated("a2", answer=bot.ask("公司幾歲？"), verdict="down"))
    plan = Plan(path, retrieval_only=True)
    evaluation = Evaluation(plan, load_questions(path), load_config(), bot, Judges)
    records = list(evaluation.records({}))
    assert [record.gold for record in records] == [(Gold(doc="doc1.txt", paragraph=1),), ()]
    assert records[0].scores["recall@1"] == 1.0
    assert evaluation.fingerprint()["questions"]["n"] == 2
