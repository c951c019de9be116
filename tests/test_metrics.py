"""From records to rates: sums, intervals, refusals, confidence, thresholds; by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ragbot.errors import ConfigError
from ragbot.evaluation.metrics import RATES, difference, rate
from ragbot.evaluation.records import Record
from ragbot.evaluation.summary import confidence, latency, shortfalls, summarise, thresholds


def made(id: int = 0, **fields: Any) -> Record:
    base = {"id": str(id), "question": "?", "lang": "en", "type": "fact", "answerable": True}
    scores = {name: float(value) for name, value in fields.pop("scores", {}).items()}
    if "right" in fields:
        scores["accuracy"] = float(fields.pop("right"))
    given = {"answer": "a", "abstained": False, "confidence": 0.5, "scores": scores}
    return Record.model_validate({**base, **given, **fields})


def cited(valid: float, citations: int) -> Record:
    citation = {"marker": 1, "doc": "d", "paragraph": 1, "quote": "q", "verbatim": True}
    return made(scores={"valid": valid}, citations=[citation] * citations)


def test_a_mean_counts_whom_it_concerns() -> None:
    records = [made(right=1), made(right=0), made(right=1), made()]  # the last is not judged
    found = rate("answer.accuracy", records)
    assert found.value == pytest.approx(2 / 3, abs=1e-4)
    assert found.low is not None and found.high is not None
    assert 0 <= found.low <= 2 / 3 <= found.high <= 1


def test_nobody_concerned_is_no_figure() -> None:
    assert rate("answer.accuracy", [made()]) == rate("answer.accuracy", [])
    assert rate("answer.accuracy", []).value is None


def test_valid_is_a_share_of_citations_not_of_answers() -> None:
    # one of one, none of three: a quarter of the citations, though half of the answers' shares
    assert rate("citation.valid", [cited(1, 1), cited(0, 3)]).value == 0.25


def refusals(*cases: tuple[bool, bool]) -> list[Record]:
    return [
        made(n, answerable=answerable, abstained=abstained)
        for n, (answerable, abstained) in enumerate(cases)
    ]


def test_refusing_is_judged_as_a_detector_of_the_unanswerable() -> None:
    # 2 unanswerable refused, 1 unanswerable answered, 1 answerable refused, 3 answerable answered
    records = refusals(
        (False, True), (False, True), (False, False), (True, True), *[(True, False)] * 3
    )
    names = ("precision", "recall", "f1", "false_refusal_rate")
    values = [rate(f"abstention.{name}", records).value for name in names]
    assert values == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 4], abs=1e-4)


def test_never_refusing_has_no_precision_and_no_recall() -> None:
    records = refusals((False, False), (True, False))
    assert rate("abstention.precision", records).value is None
    assert rate("abstention.recall", records).value == 0
    assert rate("abstention.f1", records).value == 0


def test_refusing_is_not_judged_where_all_can_be_answered() -> None:
    records = refusals((True, True), (True, False))
    assert rate("abstention.f1", records).value is None
    assert rate("abstention.precision", records).value is None
    assert rate("abstention.false_refusal_rate", records).value == 0.5


def test_an_interval_is_the_same_each_time_and_narrows_with_n() -> None:
    few = [made(n, right=n % 2) for n in range(10)]
    many = [made(n, right=n % 2) for n in range(1000)]
    wide, narrow = rate("answer.accuracy", few), rate("answer.accuracy", many)
    assert wide == rate("answer.accuracy", few)
    assert wide.low is not None and wide.high is not None
    assert narrow.low is not None and narrow.high is not None
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)
    # the binomial's: 0.5 +- 1.96 * sqrt(0.25 / 1000)
    assert (narrow.low, narrow.high) == pytest.approx((0.469, 0.531), abs=0.006)
    assert rate("answer.accuracy", many, seed=1) != narrow


def test_all_alike_has_no_spread() -> None:
    found = rate("answer.accuracy", [made(n, right=1) for n in range(5)])
    assert (found.value, found.low, found.high) == (1, 1, 1)


# --- pairs -----------------------------------------------------------------------------------


def test_a_paired_difference_sees_what_two_intervals_do_not() -> None:
    a = [made(n, right=n < 50) for n in range(100)]
    b = [made(n, right=n < 58) for n in range(100)]  # all of A's and eight more
    found = difference("answer.accuracy", a, b)
    assert found.difference == pytest.approx(0.08)
    assert found.significant
    one, other = rate("answer.accuracy", a), rate("answer.accuracy", b)
    assert one.high is not None and other.low is not None
    assert one.high > other.low, "apart, the intervals overlap"
    assert not difference("answer.accuracy", a, a).significant
    assert difference("answer.accuracy", b, a).difference == pytest.approx(-0.08)


def test_a_difference_of_what_one_lacks_is_none() -> None:
    found = difference("answer.accuracy", [made(right=1)], [made()])
    assert (found.a, found.b, found.difference, found.significant) == (1, None, None, False)


# --- the summary -----------------------------------------------------------------------------

CONFIG = {"seed": 0}


def test_the_summary_has_every_figure_in_its_place() -> None:
    records = [
        made(
            0,
            right=1,
            lang="en",
            type="fact",
            timings={"ttft_ms": 100, "total_ms": 200, "completion_tokens": 10},
        ),
        made(1, right=0, lang="zh-Hant", type="list", step="wrongly refused"),
    ]
    summary = summarise(records, CONFIG)
    assert summary["n"] == 2
    assert summary["answer"]["accuracy"] == 0.5
    assert summary["by_lang"]["en"]["answer"]["accuracy"] == 1
    assert summary["by_type"]["list"]["answer"]["accuracy"] == 0
    assert summary["steps"]["wrongly refused"] == 1
    assert summary["ci95"]["answer"]["accuracy"] == [0, 1]
    assert summary["ci95"]["citation"]["precision"] is None
    assert summary["latency"]["tokens_per_second"] == 50
    for name in RATES:
        group, _, key = name.rpartition(".")
        assert key in (summary[group] if group else summary)


def test_percentiles_of_the_times() -> None:
    records = [
        made(n, timings={"ttft_ms": n, "total_ms": 2 * n, "completion_tokens": 1})
        for n in range(101)
    ]
    assert latency(records)["ttft_ms"] == {"p50": 50, "p95": 95}
    assert latency(records)["total_ms"] == {"p50": 100, "p95": 190}
    assert latency([made()])["ttft_ms"] is None


def test_confidence_by_hand() -> None:
    records = [
        made(0, right=1, confidence=0.95),
        made(1, right=1, confidence=0.85),
        made(2, right=0, confidence=0.85),
        made(3, answerable=False, abstained=True, confidence=0.05),
    ]
    found = confidence(records)
    assert found is not None
    assert found["risk_coverage"] == [[0.25, 0], [0.5, 0], [0.75, 0.3333], [1, 0.5]]
    assert found["aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4, abs=1e-4)
    # bins 0.95 -> 1, 0.85 -> 1/2 (two), 0.05 -> 0: weighted mean distance
    assert found["ece"] == pytest.approx((0.05 + 2 * 0.35 + 0.05) / 4, abs=1e-4)
    assert found["auroc"] == 1
    assert confidence([made()]) is None


# --- thresholds ------------------------------------------------------------------------------


def test_what_falls_short_is_said() -> None:
    summary = summarise([made(right=1), made(right=0)], CONFIG)
    least = thresholds(["accuracy=0.5", "answer.fact_recall=0.9"])
    assert least == {"answer.accuracy": 0.5, "answer.fact_recall": 0.9}
    assert shortfalls(summary, least) == ["answer.fact_recall is not measured, under 0.9"]
    assert shortfalls(summary, {"answer.accuracy": 0.51}) == [
        "answer.accuracy is 0.500, under 0.51"
    ]


@pytest.mark.parametrize(
    "wanted",
    ["precision=0.5", "speed=1", "accuracy", "accuracy=", "accuracy=x", "accuracy=2", "=0.5", "",
     "false_refusal_rate=0.1", "accuracy=nan"],
)  # fmt: skip
def test_a_threshold_that_means_nothing_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match="--fail-under"):
        thresholds([wanted])
