from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest

from ragbot import console
from ragbot.abstention import DATA, FEWEST, MOST, SIGNALS, probability, size, threshold
from ragbot.bot import RagBot
from ragbot.phrases import ABSTENTION, RELATED
from ragbot.types import Language
from tests.fakes import FakeEngine, nothing, reading
from tests.test_bot import ARTICLE, BAICHUAN, CORPS, FOUNDED

MakeBot = Callable[..., RagBot]
SURE = dict.fromkeys(SIGNALS, 1.0) | {
    "score": 2.1,
    "log_none": -10.0,
    "log_least": 0.0,
    "across": 0.0,
    "size": size(100),
}
UNSURE = dict.fromkeys(SIGNALS, 0.0) | {"score": 1.5, "size": size(100)}
LIKELY, UNLIKELY = 0.9, 0.1


# --- the regression: whatever its coefficients -----------------------------------------------


def test_the_data_weighs_each_signal_and_no_other() -> None:
    fitted = json.loads(files("ragbot").joinpath(DATA).read_text(encoding="utf-8"))
    assert set(fitted) == {"intercept", "weights", "threshold"}
    assert tuple(fitted["weights"]) == SIGNALS
    assert 0 <= threshold() < 1


def test_it_rises_with_the_score_and_falls_with_the_likelihood_of_none() -> None:
    for others in (SURE, UNSURE):
        by_score = [probability({**others, "score": n / 20}) for n in range(-20, 30)]
        by_none = [probability({**others, "log_none": n / 4}) for n in range(-40, 1)]
        for rising in (by_score, by_none[::-1]):
            assert all(0 <= low <= high <= 1 for low, high in pairwise(rising))
            assert rising[0] < rising[-1]


def test_a_larger_corpus_asks_for_more_within_what_it_was_fitted_on() -> None:
    sure = [
        probability({**SURE, "score": 1.7, "size": size(n)}) for n in (1, FEWEST, 100, MOST, 10**6)
    ]
    assert sure[0] == sure[1] > sure[2] > sure[3] == sure[4]


def test_clear_cases_are_clear() -> None:
    assert probability(SURE) > 0.8
    assert probability(UNSURE) < 0.2


# --- what the bot makes of it ----------------------------------------------------------------


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch, make_bot: MakeBot) -> Callable[..., RagBot]:
    """A bot over the article that finds what it reads as likely as is said, in that order."""

    def make(*likely: float, texts: tuple[str, ...] = (ARTICLE,)) -> RagBot:
        given = iter(likely)
        monkeypatch.setattr("ragbot.inquiry.probability", lambda signals: next(given))
        return make_bot(*texts)

    return make


def test_the_signals_are_told(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(reading(CORPS, "華為在3月宣告組建醫療衛生軍團。", none=-3.5))
    bot = make_bot(ARTICLE)
    answer = bot.ask("華為在什麼時候宣布組建軍團？")
    assert tuple(answer.signals) == SIGNALS
    rest = {"log_none": -3.5, "log_least": -0.5, "proven": 1, "english": 0, "across": 0}
    rest["size"] = size(len(bot.retriever.index.chunks))
    assert answer.signals == {"score": answer.signals["score"], **rest}
    assert answer.passages[0].score < answer.signals["score"] < 2.3
    engine.enqueue("华为何时组建军团？", nothing(none=-0.1))
    refused = bot.ask("When did Huawei found its corps?")
    nil = {"log_none": -0.1, "proven": 0, "across": 1}
    assert refused.signals == {**refused.signals, **nil}


def test_what_is_too_unlikely_is_refused_though_it_could_be_proven(
    weighed: Callable[..., RagBot], engine: FakeEngine
) -> None:
    engine.enqueue(FOUNDED)
    answer = weighed(UNLIKELY, texts=(ARTICLE, *"甲乙丙丁")).ask("華為什麼時候組建軍團？")
    assert answer.abstained and answer.citations == ()
    assert answer.confidence == UNLIKELY


@pytest.mark.parametrize(
    ("texts", "none", "answered"),
    [((CORPS,), -5.0, True), ((CORPS,), -3.0, False), (tuple("甲乙丙丁戊己庚辛"), -5.0, False)],
)
def test_of_a_short_document_what_was_read_decides_and_not_the_score(
    weighed: Callable[..., RagBot],
    engine: FakeEngine,
    texts: tuple[str, ...],
    none: float,
    answered: bool,
) -> None:
    engine.enqueue(reading(CORPS, "華為在3月宣告組建醫療衛生軍團。", none=none))
    bot = weighed(UNLIKELY, texts=(CORPS, *texts))
    assert bot.ask("華為什麼時候組建軍團？").abstained is not answered


def test_what_is_likely_enough_is_answered(
    weighed: Callable[..., RagBot], engine: FakeEngine
) -> None:
    engine.enqueue(FOUNDED)
    answer = weighed(0.5).ask("華為什麼時候組建軍團？")  # the fixture's threshold
    assert not answer.abstained and answer.confidence == 0.5


def test_nothing_is_answered_from_nothing_however_likely(
    weighed: Callable[..., RagBot], engine: FakeEngine
) -> None:
    engine.enqueue(nothing(), reading("總部設在深圳的龍崗。", "總部設在深圳。"))
    bot = weighed(LIKELY, LIKELY)
    assert bot.ask("華為？").abstained
    assert bot.ask("華為軍團的總部在哪裡？").abstained


# --- what comes nearest ----------------------------------------------------------------------

NEAR: Mapping[Language, str] = {
    "zh-Hant": "華為3月對外宣告組建醫療衛生軍團的總部？",
    "zh-Hans": "华为3月对外宣告组建医疗卫生军团的总部？",
}


@pytest.mark.parametrize("language", NEAR)
def test_a_refusal_names_what_comes_nearest(
    make_bot: MakeBot, engine: FakeEngine, language: Language
) -> None:
    engine.enqueue(nothing())
    bot = make_bot(f"{BAICHUAN}華為3月對外宣告組建醫療衛生軍團。\n{BAICHUAN}")
    answer = bot.ask(NEAR[language])
    assert answer.abstained and answer.citations == ()
    assert answer.answer == ABSTENTION[language] + RELATED[language].format(1)
    (related,) = answer.related
    assert (related.marker, related.quote) == (1, "華為3月對外宣告組建醫療衛生軍團。")
    document = bot.retriever.index.documents[related.doc]
    assert document.text[related.start : related.end] == related.quote
    assert related.paragraph == 1


def test_an_english_refusal_names_it_too(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(nothing("en"))
    answer = make_bot("The bridge was designed by Haim. It is long.").ask(
        "When was the bridge designed by Haim?"
    )
    assert answer.answer == (
        "These documents do not contain the answer to this question. What comes nearest is in [1]."
    )
    assert answer.related[0].quote == "The bridge was designed by Haim."


@pytest.mark.parametrize(
    "question", ["嗯，再見。", "謝謝你，再見。", "bye", "Have a good morning, all of you!"]
)
def test_what_nothing_comes_near_has_nothing_named(
    make_bot: MakeBot, engine: FakeEngine, question: str
) -> None:
    engine.enqueue(*(["早安。"] if question.isascii() else []), nothing())
    answer = make_bot(ARTICLE).ask(question)
    assert answer.abstained and answer.related == ()
    assert answer.answer == ABSTENTION[answer.language]


def test_an_answer_has_nothing_related(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(FOUNDED)
    answer = make_bot(ARTICLE).ask(CORPS)
    assert not answer.abstained and answer.related == ()


# --- as it is printed ------------------------------------------------------------------------


def test_json_tells_how_sure_and_what_is_near(make_bot: MakeBot, engine: FakeEngine) -> None:
    engine.enqueue(nothing())
    answer = make_bot(ARTICLE).ask(NEAR["zh-Hant"])
    told = json.loads(json.dumps(console.answer_json(answer)))
    assert told["abstained"] and told["confidence"] == 0.9 and told["citations"] == []
    assert told["queries"] == [NEAR["zh-Hant"]]
    assert told["related"] == [
        {"marker": 1, "doc": "doc1.txt", "paragraph": 1, "start": 0, "end": len(CORPS), "quote": CORPS}
    ]  # fmt: skip
    assert list(told) == [
        "question",
        "language",
        "answer",
        "abstained",
        "confidence",
        "citations",
        "related",
        "queries",
        "passages",
        "timings",
    ]


def test_what_is_near_is_not_told_as_a_proof(
    make_bot: MakeBot, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.enqueue(nothing())
    console.print_sources(make_bot(f"{CORPS}{BAICHUAN}").ask(NEAR["zh-Hant"]))
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Nearest, but not an answer:",
        "",
        "[1] doc1.txt, paragraph 1",
        f"    >>{CORPS}<<{BAICHUAN}",
    ]


def test_a_source_that_was_not_found_is_shown_by_its_quote(
    make_bot: MakeBot, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.enqueue(nothing())
    answer = make_bot(ARTICLE).ask(NEAR["zh-Hant"])
    console.print_sources(replace(answer, passages=()))
    assert f"    >>{CORPS}<<\n" in capsys.readouterr().out
