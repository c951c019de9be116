"""The simulation to plan by: against what is known of queues, and beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import capacity
from scripts.bench.figures import largest, mean, median, p95


def test_nobody_waits_where_there_is_a_generator_for_each() -> None:
    visits = capacity.crowd(1, 50, [9.0])
    assert {visit.waited for visit in visits} == {0.0}
    assert all(visit.answered == pytest.approx(9.0) for visit in visits)


def test_waits_are_those_of_queueing_theory() -> None:
    # M/D/1 at half its load: the mean wait is half a service time, times 0.5 / (1 - 0.5).
    waits = [visit.waited for visit in capacity.crowd(30, 1, [1.0])]
    assert mean(waits) == pytest.approx(0.5, rel=0.15)


def test_more_than_can_be_answered_are_refused() -> None:
    # 30 a minute come, 6 a minute are answered: four of five have to go.
    visits = capacity.crowd(30, 1, [10.0])
    refused = [visit for visit in visits if visit.answered is None]
    assert len(refused) / len(visits) == pytest.approx(0.8, abs=0.05)
    longest = largest(visit.waited for visit in visits)
    assert longest is not None and longest <= capacity.PATIENCE


def test_as_many_are_needed_as_serve_almost_all_in_good_time() -> None:
    row = capacity.needed(20, [9.0])  # three at work all the time
    assert row["generators"] > 3 and row["answer_p95_s"] <= capacity.GOOD_TIME
    fewer = capacity.crowd(20, row["generators"] - 1, [9.0])
    times = [visit.answered for visit in fewer if visit.answered is not None]
    assert len(times) < len(fewer) or (p95(times) or 0) > capacity.GOOD_TIME


def test_the_same_is_foretold_each_time() -> None:
    assert capacity.crowd(20, 5, [3.0, 9.0]) == capacity.crowd(20, 5, [3.0, 9.0])


def test_readers_at_once_take_turns() -> None:
    visits = capacity.at_once(3, 2, [10.0], seed=0)
    assert [visit.answered for visit in visits] == [10.0, 20.0, 30.0, 30.0, 30.0, 30.0]
    assert [visit.waited for visit in visits] == [0.0, 10.0, 20.0, 20.0, 20.0, 20.0]


def sample(readers: int, reader: int, total: float | None) -> dict[str, object]:
    refused = "" if total else "full"
    return {"readers": readers, "reader": reader, "total_s": total, "refused": refused}


def test_what_is_foretold_stands_beside_what_was_measured(tmp_path: Path) -> None:
    assert capacity.check(tmp_path / "bench.json") == []
    taken = [sample(0, 0, 20.0), *(sample(1, 0, 8.0) for _ in range(4))]
    taken += [sample(2, reader, 16.5) for reader in (0, 1) for _ in range(2)]
    (tmp_path / "bench.json").write_text(json.dumps({"readers": {"samples": taken}}))
    one, two = capacity.check(tmp_path / "bench.json")
    assert (one["readers"], one["foretold_median_s"], one["measured_median_s"]) == (1, 8.0, 8.0)
    assert (two["foretold_median_s"], two["foretold_longest_s"]) == (16.0, 16.0)
    assert (two["measured_median_s"], two["questions"]) == (16.5, 4)


def test_seconds_are_read_from_a_list_or_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1.5, 2]")
    (tmp_path / "answers.jsonl").write_text('{"timings": {"total_ms": 2500}}\n')
    assert capacity.load_seconds(tmp_path / "a.json") == [1.5, 2.0]
    assert capacity.load_seconds(tmp_path / "answers.jsonl") == [2.5]
    assert median(capacity.load_seconds(capacity.SECONDS)) == pytest.approx(7.8, abs=0.1)


def test_no_measured_seconds_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert capacity.main(["--seconds", str(tmp_path / "a.json")]) == 2
    assert "no measured seconds" in capsys.readouterr().err


def test_files_and_picture_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "RATES", (1, 60))
    monkeypatch.setattr(capacity, "GENERATORS", (1,))
    monkeypatch.setattr(capacity, "_LEAST", 100)
    out, picture = tmp_path / "capacity.json", tmp_path / "capacity.png"
    assert capacity.main(["--out", str(out), "--picture", str(picture)]) == 0
    crowds = json.loads(out.read_text())["crowds"]
    assert [row["readers_a_minute"] for row in crowds] == [1, 60]
    assert crowds[0]["refused"] == 0 and crowds[1]["refused"] > 0.5
    assert picture.stat().st_size > 10_000
