"""The bench: its figures, its tables, how it keeps results, and what it says to mistakes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import Gold, Question
from scripts.bench import __main__ as command
from scripts.bench import (
    answering,
    figures,
    page,
    peers,
    plan,
    processes,
    readers,
    results,
    searching,
)
from tests.conftest import ARTICLE

# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "middle", "tail"),
    [
        ([], None, None),
        ([None], None, None),
        ([3.0], 3.0, 3.0),
        ([4.0, 2.0, None], 3.0, 3.9),
        ([float(n) for n in range(1, 102)], 51.0, 96.0),
    ],
)
def test_middle_and_tail(
    values: list[float | None], middle: float | None, tail: float | None
) -> None:
    assert figures.median(values) == middle
    assert figures.p95(values) == (tail if tail is None else pytest.approx(tail))


@pytest.mark.parametrize(
    ("waits", "index"),
    [
        ([], None),
        ([0.0, 0.0], 1.0),
        ([5.0], 1.0),
        ([2.0, 2.0, 2.0], 1.0),
        ([1.0, 0.0, 0.0, 0.0], 0.25),
        ([1.0, 2.0, 3.0], 36 / 42),
    ],
)
def test_fairness_is_jains_index(waits: list[float], index: float | None) -> None:
    assert figures.jain(waits) == (index if index is None else pytest.approx(index))


def test_ratios_are_of_what_belongs_together() -> None:
    assert figures.ratio(3.0, 2.0) == 1.5
    assert (figures.whole(143.5), figures.whole(None)) == (144, None)
    assert figures.ratio(3.0, 0.0) is None
    assert figures.ratio(None, 2.0) is None
    assert figures.paired_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0
    assert figures.paired_ratio([2.0, None], [1.0, 10.0]) == 2.0


# --- the judge -----------------------------------------------------------------------------------

SOURCES = {"1": "first", "2": "second", "3": "third"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is so.", []),
        ("It is so [2].", ["second"]),
        ("So [3], and so [1][3].", ["third", "first"]),
        ("So [1, 3].", ["first", "third"]),
        ("是的【2】。", ["second"]),
        ("是的［2］。", ["second"]),
        ("是的[资料1]。", ["first"]),
        ("So [Source 2].", ["second"]),
        ("So [9].", []),
        ("In 2 of 3 cases.", []),
    ],
)
def test_citations_are_read_however_they_are_written(text: str, found: list[str]) -> None:
    assert plan.cited(text, SOURCES) == found


def question(answerable: bool = True, number: int = 1) -> Question:
    gold = (Gold(paragraph=number),) if answerable else ()
    return Question(
        id="q",
        question="華為幾月成立軍團？",
        lang="zh-Hant",
        answerable=answerable,
        gold=gold,
        must_include=(("3月", "三月"),) if answerable else (),
    )


def test_gold_is_cited_by_whatever_holds_one_of_its_sentences() -> None:
    text = ARTICLE.read_text(encoding="utf-8")
    first, second = text.splitlines()[:2]
    sentence = first[: first.index("。") + 1]
    for pieces, wanted in (
        ([first], 1.0),
        ([second], 0.0),
        ([], 0.0),
        ([second, f"Source 2:\n{sentence}\n"], 1.0),
        ([sentence[:6]], 0.0),
    ):
        assert plan.cites_gold(question(), pieces, ARTICLE) == wanted
    assert plan.cites_gold(question(answerable=False), [first], ARTICLE) is None


def test_an_answer_is_right_when_it_holds_the_facts_and_was_given() -> None:
    assert plan.right(question(), "在三月宣布 [1]。", False) == 1.0
    assert plan.right(question(), "在四月宣布 [3]。", False) == 0.0
    assert plan.right(question(), "三月", True) == 0.0
    assert plan.right(question(answerable=False), "三月", False) is None


# --- what is kept --------------------------------------------------------------------------------


def test_the_results_of_other_parts_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.json"
    assert results.load(path) == {}
    results.save(path, results.merged({"readers": {"n": 1}, "peers": {"n": 2}}, "peers", {"n": 3}))
    assert results.load(path) == {"readers": {"n": 1}, "peers": {"n": 3}}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(StoreError, match="move it away"):
        results.load(path)
    assert path.read_text() == text


def a_plan(tmp_path: Path) -> plan.Plan:
    return plan.Plan([question()], question(), ARTICLE, tmp_path / "index")


def part_of(*samples: plan.Sample, then: type[BaseException] | None = None) -> plan.Part:
    def take(_: plan.Plan) -> Iterator[plan.Sample]:
        yield from samples
        if then:
            raise then

    def tables(taken: Sequence[plan.Sample]) -> list[plan.Table]:
        return [plan.Table("Counted", "of no use", [{"samples": len(taken)}])]

    return plan.Part("answering", lambda _: 3, take, tables)


def test_an_interrupted_part_keeps_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = (tmp_path / "bench.json", tmp_path / "bench.md")
    broken = part_of({"a": 1}, {"a": 2}, then=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        command._part(broken, a_plan(tmp_path), files)
    kept = json.loads(files[0].read_text())["answering"]
    assert (kept["complete"], kept["samples"]) == (False, [{"a": 1}, {"a": 2}])
    assert "Broken off" in files[1].read_text()
    assert "answering 2 of 3" in capsys.readouterr().err
    command._part(part_of({"a": 1}), a_plan(tmp_path), files)
    assert json.loads(files[0].read_text())["answering"]["complete"] is True
    assert "Broken off" not in files[1].read_text()


def test_a_page_says_under_what_conditions(tmp_path: Path) -> None:
    files = (tmp_path / "bench.json", tmp_path / "bench.md")
    command._part(part_of({"a": 1}), a_plan(tmp_path), files)
    text = files[1].read_text()
    for wanted in ("## Answering", "**Counted**: of no use", "| samples |", "cores", "python 3."):
        assert wanted in text
    assert str(tmp_path) not in text + files[0].read_text(), "a path of this machine"


# --- tables --------------------------------------------------------------------------------------


def test_figures_stand_to_the_right_and_what_is_missing_is_a_dash() -> None:
    rows: list[dict[str, object]] = [
        {"name": "a|b", "seconds": 1.234, "big": 1234.5, "n": 3},
        {"name": "c\nd", "seconds": None, "big": 0.0, "n": 1},
    ]
    assert page.markdown(rows).splitlines() == [
        "| name | seconds | big | n |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 1.23 | 1,234 | 3 |",
        "| c d | – | 0.00 | 1 |",
    ]
    assert page.markdown([]) == "Nothing was measured."


def warm(first: float, reused: int | None = None) -> plan.Sample:
    timings = {"total_ms": 1000 * first, "prompt_tokens": 700, "completion_tokens": 40}
    return {
        "kind": "warm",
        "model": "1.5B",
        "pass": 1,
        "near_s": first / 10,
        "first_s": first,
        "total_s": first + 1,
        "timings": timings | ({} if reused is None else {"reused": reused}),
        "right": 1.0,
        "cites_gold": None,
        "peak_mb": 900,
    }


@pytest.mark.parametrize("reused", [None, 500])
def test_answering_tells_tokens_where_they_are_counted(reused: int | None) -> None:
    cold = {"kind": "cold", "model": "1.5B", "first_s": 9.0, "total_s": 9.5, "peak_mb": 800}
    cold |= {"near_s": None}
    nothing, running = answering.PART.tables([cold, warm(2.0, reused), warm(4.0, reused)])
    assert nothing.rows[0]["first text, median"] == 9.0
    row = running.rows[0]
    assert (row["first text, median"], row["end, median"]) == (3.0, 4.0)
    assert row["nearest sentence, median"] == pytest.approx(0.3)
    assert (row["tokens in prompts, median"], row["of them reused"]) == (700, reused)
    assert (row["right"], row["cites gold"]) == (1.0, None)


def visit(reader: int, asked: float, first: float, refused: str = "") -> plan.Sample:
    return {
        "readers": 2,
        "reader": reader,
        "asked_s": asked,
        "first_s": None if refused else first,
        "total_s": None if refused else first,
        "refused": refused,
        "peak_mb": 1,
    }


def test_readers_are_counted_answers_a_minute_and_how_evenly_they_wait() -> None:
    visits = [visit(0, 0, 10), visit(1, 0, 20), visit(0, 10, 20), visit(1, 20, 10)]
    row = readers.PART.tables([*visits, visit(1, 30, 0, "429")])[1].rows[0]
    assert (row["questions"], row["refused"]) == (5, 1)
    assert row["answers a minute"] == pytest.approx(4 / 30 * 60)
    assert (row["first text, median"], row["longest"]) == (15, 20)
    assert row["fairness"] == pytest.approx(1.0)


def test_a_peer_that_fails_is_told_of_and_the_others_are_compared() -> None:
    def sample(name: str, question: str, first: float) -> plan.Sample:
        figures = {"near_s": None, "first_s": first, "total_s": first, "read": 1, "written": 1}
        judged = {"right": 1.0, "cites_gold": 0.0, "peak_mb": 5}
        return {"answerer": name, "question": question} | figures | judged

    samples = [
        {"answerer": "Absent", "failed": "it cannot be installed"},
        sample("ragbot", "a", 2.0),
        sample("Slow", "a", 6.0),
        sample("ragbot", "b", 4.0),
        {"answerer": "Slow", "question": "b", "failed": "it ended"},
    ]
    rows = {row["answerer"]: row for row in peers.PART.tables(samples)[0].rows}
    assert list(rows) == ["ragbot", "Absent", "Slow"]
    assert rows["ragbot"]["times of ours"] == 1.0
    assert (rows["Slow"]["times of ours"], rows["Slow"]["answers"]) == (3.0, 1)
    assert rows["Slow"]["failed"] == "it ended"
    assert (rows["Absent"]["answers"], rows["Absent"]["p95"]) == (0, None)


def test_sizes_without_words_have_a_dash_for_them() -> None:
    dense: plan.Sample = {
        "passages_ms": {"median": 1.5, "p95": 2.0},
        "lost": {"at_50": 0.0},
        "exact": True,
    }
    samples: list[plan.Sample] = [
        {"kind": "indexing", "figures": {"query_ms": {"median": 9.0}}},
        {"kind": "searching", "chunks": 1000, "figures": {"dense": dense, "lexical": None}},
    ]
    found, made = searching.PART.tables(samples)
    row = found.rows[0]
    assert (row["chunks"], row["exact"], row["passages, median"], row["p95"]) == (
        1000,
        "yes",
        1.5,
        2.0,
    )
    assert (row["lost at 50"], row["words, median"], row["disk, MB"]) == (0.0, None, None)
    assert made.rows[0]["question, median"] == 9.0


# --- processes -----------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_is_timed_to_its_first_byte_and_to_its_end() -> None:
    code = "import time; print('a', flush=True); time.sleep(0.3); print('b')"
    run = processes.timed(python(code))
    assert run.said == "a\nb\n"
    assert run.first_s is not None and run.first_s < run.total_s - 0.25
    # Until it is another program a process has the memory of the one that it came from.
    assert 1 < run.peak_mb < 200 + processes.peak_mb(os.getpid())
    assert processes.timed(python("pass")).first_s is None


def test_what_a_process_shows_on_its_terminal_is_timed() -> None:
    code = "import sys, time; print('wait', file=sys.stderr, flush=True); time.sleep(0.3); print(1)"
    run = processes.timed(python(code), "wait")
    assert run.shown_s is not None and run.first_s is not None
    assert 0 < run.shown_s < run.first_s - 0.25
    assert processes.timed(python(code), "nothing of the kind").shown_s is None


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(processes.FailedError, match="no such thing"):
        processes.timed(python("raise SystemExit('first\\nno such thing')"))


ECHO = """
from scripts.bench.answerer.protocol import run
def opened(settings):
    print("chatter that is no message")
    def answer(question, say):
        if question == "end": raise SystemExit("had enough")
        if question != "silence": say(" "); say(question)
        return {"text": question, "sources": {}}
    return answer, {"name": settings["name"]}
run(opened)
"""


def test_answerers_are_spoken_to_by_one_protocol() -> None:
    child = processes.Child(python(ECHO), {"name": "回聲"})
    try:
        assert child.about["name"] == "回聲"
        for text in ("你好", "silence", "a\nb"):
            told = child.ask(text)
            assert told["text"] == text
            assert 0 <= told["first_s"] <= told["total_s"] < 5
        assert 1 < child.peak_mb() < 200
        with pytest.raises(processes.FailedError, match="had enough"):
            child.ask("end")
    finally:
        child.close()


def test_memory_counts_children() -> None:
    family = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    code = f"import sys; sys.argv = ['', {ECHO!r}]; {family}"
    child = processes.Child(python(code), {"name": "n"})
    alone = processes.Child(python(ECHO), {"name": "n"})
    try:
        assert child.peak_mb() > 1.5 * alone.peak_mb()
    finally:
        child.close()
        alone.close()


def test_settings_of_the_one_who_measures_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGBOT_TOP_K", "1")
    kept = processes.environment()
    assert "RAGBOT_TOP_K" not in kept and "RAGBOT_CACHE" in kept


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "reading"], "There is no part 'reading'"),
        (["--only", "answering,cooking"], "There is no part 'cooking'"),
        (["--only", ""], "There is no part ''"),
        (["--limit", "0"], "is no number from 1 up"),
        (["--limit", "many"], "is no number from 1 up"),
        (["--limit", "1000"], "ask for fewer"),
        (["--nonsense"], "nrecognized arguments: --nonsense"),
        (["--questions", "absent.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_of_two = tmp_path / "set.txt"
    set_of_two.write_text("一？\n二？\n")
    given = (
        arguments if "--questions" in arguments else ["--questions", str(set_of_two), *arguments]
    )
    assert command.main([*given, "--out", str(tmp_path / "o.json")]) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err
    assert told.err.count("\n") == 1 and told.err.endswith(".\n")
    assert not (tmp_path / "o.json").exists()


def test_the_sample_is_fixed_and_leaves_out_what_needs_a_talk(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    rows: list[dict[str, Any]] = [{"id": f"q{n}", "question": f"What is {n}?"} for n in range(9)]
    rows[3]["history"] = [{"role": "user", "content": "before"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    drawn, warm_up = plan.draw(path, 5)
    assert (drawn, warm_up) == plan.draw(path, 5)
    assert len(drawn) == 5 and warm_up not in drawn
    assert "q3" not in {question.id for question in plan.draw(path, 7)[0]}
    with pytest.raises(ConfigError, match="8 questions that stand alone"):
        plan.draw(path, 8)


def test_the_parts_go_in_their_order_whatever_was_typed() -> None:
    assert command._parts("peers, answering") == ["answering", "peers"]
    assert math.isclose(sum(part.count(EMPTY) for part in command.PARTS.values()), 6 + 33 + 5)


EMPTY = plan.Plan([], question(), ARTICLE, Path("index"))
