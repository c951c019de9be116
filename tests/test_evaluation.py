"""Evaluations from question set to report: with fakes, then with the packaged models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.errors import ConfigError, RagbotError
from ragbot.evaluation.command import Output, conduct, show_comparison
from ragbot.evaluation.compare import compare
from ragbot.evaluation.conditions import Conditions
from ragbot.evaluation.questions import Selection, load_questions
from ragbot.evaluation.records import Run, writing
from ragbot.evaluation.report import comparison_report
from ragbot.evaluation.run import Evaluation, Plan
from ragbot.evaluation.scoring import Judges
from ragbot.types import Hit
from tests.conftest import ARTICLE, SHARED, needs_shared
from tests.fakes import FakeEngine, Reply, nothing, reading
from tests.test_cli import ragbot, refused

MakeBot = Callable[..., RagBot]

PRICES = "\n".join(
    f"{fruit}一斤賣{price}元。"
    for fruit, price in (
        ("蘋果", 31), ("香蕉", 22), ("橘子", 43), ("西瓜", 54), ("葡萄", 95), ("鳳梨", 66), ("草莓", 77)
    )
)  # fmt: skip
ASKED: list[dict[str, Any]] = [
    {"id": "a", "type": "fact", "question": "蘋果一斤賣多少元？", "gold_paragraphs": [1], "must_include": [["31"]]},
    {"id": "b", "type": "fact", "question": "香蕉一斤賣多少元？", "gold_paragraphs": [2], "must_include": [["22"]]},
    {"id": "c", "type": "none", "question": "芒果一斤賣多少元？", "answerable": False},
]  # fmt: skip
APPLES, BANANAS = (reading(said, said) for said in ("蘋果一斤賣31元。", "香蕉一斤賣22元。"))
NOTHING = nothing()
RIGHT = APPLES, BANANAS, NOTHING


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    rows = [json.dumps({"lang": "zh-Hant", **row}, ensure_ascii=False) for row in ASKED]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def evaluation(questions: Path, make_bot: MakeBot, engine: FakeEngine) -> Callable[..., Evaluation]:
    """An evaluation of the three questions over a price list, of which the replies are given."""

    def make(
        *replies: Reply | str | Exception, texts: tuple[str, ...] = (PRICES,), **plan: Any
    ) -> Evaluation:
        engine.enqueue(*replies)
        config = load_config({"corpus": questions.parent / "texts", "top_k": 3})
        bot = make_bot(*texts)
        made = Plan(questions, **plan)
        asked = load_questions(questions)
        return Evaluation(
            made, asked, config, bot, lambda: Judges(lambda claim, text: claim in text)
        )

    return make


def silent(done: int, total: int) -> None:
    pass


def kept(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


Make = Callable[..., Evaluation]


def test_a_run_leaves_record_summary_and_report(evaluation: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = conduct(evaluation(*RIGHT), Output(out), silent)
    assert summary["answer"]["accuracy"] == 1
    assert summary["abstention"] == {"precision": 1, "recall": 1, "f1": 1, "false_refusal_rate": 0}
    assert summary["citation"]["valid"] == 1
    assert summary["retrieval"]["recall@1"] == 1
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == summary
    first = kept(out)[0]
    assert {"id", "question", "lang", "type", "answer", "abstained", "citations", "retrieved"} | {
        "timings",
        "scores",
    } <= set(first)
    assert first["answer"] == "蘋果一斤賣31元。[1]"
    assert first["citations"][0] | {"verbatim": True} == {
        "marker": 1, "doc": "doc1.txt", "paragraph": 1, "quote": "蘋果一斤賣31元。", "verbatim": True,
        "supports": True,
    }  # fmt: skip
    assert set(first["retrieved"][0]) == {"doc", "paragraph", "score"}
    assert len(first["prompt"]) == 3


def test_each_answer_is_on_disk_before_the_next_is_asked(evaluation: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == 3
        seen.append(len(kept(out)) if done else 0)

    conduct(evaluation(*RIGHT), Output(out), progress)
    assert seen == [0, 1, 2, 3]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two summaries are the same but for the times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k != "latency"}
        return value

    return bool(timeless(one) == timeless(other))


@pytest.mark.parametrize("torn", ["", '{"id": "b", "quest', "\0\0\0"])
def test_an_interrupted_run_goes_on_where_it_stopped(
    evaluation: Make, engine: FakeEngine, tmp_path: Path, torn: str
) -> None:
    whole = conduct(evaluation(*RIGHT), Output(tmp_path / "whole"), silent)
    out = tmp_path / "run"
    with pytest.raises(RagbotError, match="server"):
        conduct(evaluation(RIGHT[0], ConfigError("the server went away")), Output(out), silent)
    with (out / "answers.jsonl").open("a", encoding="utf-8") as file:
        file.write(torn)
    prompts = len(engine.prompts)
    resumed = conduct(evaluation(*RIGHT[1:]), Output(out, resume=True), silent)
    assert len(engine.prompts) - prompts == 2, "what is answered is not asked again"
    assert same(resumed, whole)
    assert [row["id"] for row in kept(out)] == ["a", "b", "c"]


def test_a_run_is_not_overwritten_nor_mixed_with_another(evaluation: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    conduct(evaluation(*RIGHT), Output(out), silent)
    before = (out / "answers.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already: add --resume"):
        conduct(evaluation(*RIGHT), Output(out), silent)
    other = evaluation(*RIGHT, selection=Selection(seed=7))
    with pytest.raises(ConfigError, match=r"begun otherwise .seed 0, now 7"):
        conduct(other, Output(out, resume=True), silent)
    assert (out / "answers.jsonl").read_bytes() == before


def test_two_cannot_write_one_run(evaluation: Make, tmp_path: Path) -> None:
    with writing(tmp_path / "run"), pytest.raises(ConfigError, match="Another evaluation"):
        conduct(evaluation(*RIGHT), Output(tmp_path / "run"), silent)


@pytest.mark.parametrize("line", [b"{}\n", b"no json\n", b"\xff\xfe\n"])
def test_a_damaged_record_is_named(evaluation: Make, tmp_path: Path, line: bytes) -> None:
    out = tmp_path / "run"
    conduct(evaluation(*RIGHT), Output(out), silent)
    path = out / "answers.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + line)
    with pytest.raises(ConfigError, match=r"Line 2 of .* is not a record"):
        conduct(evaluation(*RIGHT), Output(out, resume=True), silent)


def test_retrieval_alone_asks_nothing(evaluation: Make, engine: FakeEngine) -> None:
    summary = conduct(evaluation(retrieval_only=True), Output(), silent)
    assert summary["retrieval"]["recall@1"] == 1
    assert summary["answer"]["accuracy"] is None
    assert engine.prompts == []


def follow_up(questions: Path) -> None:
    """Make of the second question one that follows the first."""
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    history = [{"role": "user", "content": rows[0]["question"]}]
    history.append({"role": "assistant", "content": "31元。[1]"})
    rows[1] |= {"question": "那香蕉賣多少？", "history": history}
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    questions.write_text(text, encoding="utf-8")


def test_what_was_searched_for_and_weighed_is_kept(
    evaluation: Make, questions: Path, tmp_path: Path
) -> None:
    follow_up(questions)
    replies = (APPLES, "香蕉一斤卖多少元？", BANANAS, NOTHING)
    summary = conduct(evaluation(*replies), Output(tmp_path / "run"), silent)
    assert summary["answer"]["accuracy"] == 1 and summary["retrieval"]["recall@1"] == 1
    rows = kept(tmp_path / "run")
    assert [row["queries"] for row in rows] == [
        [ASKED[0]["question"]],
        ["香蕉一斤賣多少元？"],
        [ASKED[2]["question"]],
    ]
    assert [row["signals"]["proven"] for row in rows] == [1, 1, 0]
    assert all(row["confidence"] == 0.9 for row in rows)


def test_without_a_generator_a_follow_up_is_joined_to_what_it_follows(
    evaluation: Make, engine: FakeEngine, questions: Path, tmp_path: Path
) -> None:
    follow_up(questions)
    conduct(evaluation(retrieval_only=True), Output(tmp_path / "run"), silent)
    assert engine.prompts == []
    found = [place["paragraph"] for place in kept(tmp_path / "run")[1]["retrieved"]]
    assert {1, 2} <= set(found[:3]) and found[0] == 1, "as if both were asked"


def test_retrieval_can_be_measured_over_what_the_generator_makes_of_a_question(
    evaluation: Make, engine: FakeEngine, questions: Path, tmp_path: Path
) -> None:
    follow_up(questions)
    made = evaluation("香蕉一斤卖多少元？", retrieval_only=True, rephrase=True)
    summary = conduct(made, Output(tmp_path / "run"), silent)
    assert summary["retrieval"]["recall@1"] == 1
    assert summary["answer"]["accuracy"] is None
    assert len(engine.prompts) == 1, "the follow-up alone was rewritten, nothing was read"
    assert made.fingerprint()["rephrase"] is True
    assert made.fingerprint()["models"]["llm"] is not None
    assert evaluation(retrieval_only=True).fingerprint()["models"]["llm"] is None


def test_the_fingerprint_tells_what_was_run_and_not_where(evaluation: Make, tmp_path: Path) -> None:
    text = json.dumps(evaluation().fingerprint())
    assert str(tmp_path) not in text
    assert "asked.jsonl" in text


def test_the_fingerprint_names_the_reranker(evaluation: Make, tmp_path: Path) -> None:
    made = evaluation()
    assert made.fingerprint()["models"]["reranker"] is None
    (tmp_path / "cross").mkdir()
    made.config = load_config({"reranker": str(tmp_path / "cross")})
    told = made.fingerprint()
    assert told["models"]["reranker"].startswith("cross, ")
    assert str(tmp_path) not in json.dumps(told)


def test_a_run_begun_before_there_was_a_setting_goes_on(evaluation: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    conduct(evaluation(*RIGHT), Output(out), silent)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    del config["models"]["reranker"]
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    conduct(evaluation(), Output(out, resume=True), silent)


# --- conditions ------------------------------------------------------------------------------


def test_noise_adds_passages_that_do_not_help(
    evaluation: Make, engine: FakeEngine, tmp_path: Path
) -> None:
    noisy = evaluation(*RIGHT, conditions=Conditions(noise=2))
    summary = conduct(noisy, Output(tmp_path / "run"), silent)
    prompts = [row["prompt"] for row in kept(tmp_path / "run")]
    assert [len(prompt) for prompt in prompts] == [5, 5, 5]
    assert len({place["paragraph"] for place in prompts[0]}) == 5
    assert engine.prompts[0][-1].content.count("一斤卖") == 5 + 1, "all are read, with the question"
    assert summary["retrieval"]["recall@1"] == 1, "what is found is found without the noise"


def test_noise_is_drawn_by_the_seed(evaluation: Make, tmp_path: Path) -> None:
    drawn = []
    for number, seed in enumerate((1, 1, 2, 3)):
        plan = {"conditions": Conditions(noise=2), "selection": Selection(seed=seed)}
        out = tmp_path / str(number)
        conduct(evaluation(*RIGHT, **plan), Output(out), silent)
        drawn.append([[place["paragraph"] for place in row["prompt"]] for row in kept(out)])
    assert drawn[0] == drawn[1]
    assert not drawn[1] == drawn[2] == drawn[3]


def test_without_gold_only_a_refusal_is_right(evaluation: Make, tmp_path: Path) -> None:
    bare = evaluation(NOTHING, NOTHING, NOTHING, conditions=Conditions(remove_gold=True))
    summary = conduct(bare, Output(tmp_path / "run"), silent)
    assert summary["abstention"]["recall"] == 1
    assert summary["answer"]["accuracy"] is None
    rows = kept(tmp_path / "run")
    for row, gold in zip(rows[:2], (1, 2), strict=True):
        assert gold not in {place["paragraph"] for place in row["prompt"] + row["retrieved"]}


def test_each_question_can_be_asked_with_and_without_its_gold(
    evaluation: Make, tmp_path: Path
) -> None:
    replies = (APPLES, NOTHING, BANANAS, NOTHING, NOTHING)
    both = evaluation(*replies, conditions=Conditions(also_removed=True))
    summary = conduct(both, Output(tmp_path / "run"), silent)
    ids = [row["id"] for row in kept(tmp_path / "run")]
    assert ids == ["a", "a~removed", "b", "b~removed", "c"]
    assert summary["abstention"]["f1"] == 1
    assert summary["answer"]["accuracy"] == 1


def test_gold_is_hidden_behind_the_readers_reranker(evaluation: Make, tmp_path: Path) -> None:
    def backwards(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return [replace(hit, rank=rank) for rank, hit in enumerate(reversed(hits), start=1)]

    bare = evaluation(retrieval_only=True, conditions=Conditions(remove_gold=True))
    conduct(bare, Output(tmp_path / "run"), silent)
    bare._bot.retriever = bare._bot.retriever.then(backwards)
    conduct(bare, Output(tmp_path / "turned"), silent)
    for usual, turned in zip(kept(tmp_path / "run"), kept(tmp_path / "turned"), strict=True):
        assert turned["retrieved"] == usual["retrieved"][::-1]


# --- comparing -------------------------------------------------------------------------------


@pytest.fixture
def two_runs(evaluation: Make, tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "first", tmp_path / "second"
    conduct(evaluation(APPLES, NOTHING, NOTHING), Output(a), silent)
    conduct(evaluation(NOTHING, BANANAS, NOTHING), Output(b), silent)
    return a, b


def test_two_runs_are_compared_question_by_question(two_runs: tuple[Path, Path]) -> None:
    found = compare(*map(Run, two_runs))
    assert found["n"] == 3
    accuracy = found["metrics"]["answer.accuracy"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (0.5, 0.5, 0)
    assert not accuracy["significant"]
    assert [flip["id"] for flip in found["gained"]] == ["b"]
    assert [flip["id"] for flip in found["lost"]] == ["a"]
    assert found["gained"][0]["a"]["step"] == "wrongly refused"
    assert found["gained"][0]["b"]["answer"] == "香蕉一斤賣22元。[1]"
    assert found["settings"] == []


def test_a_comparison_in_the_terminal_as_json_and_as_a_page(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_comparison(*two_runs, tmp_path / "c.html", as_json=False)
    printed = capsys.readouterr().out
    assert "answer.accuracy" in printed
    assert "1 questions right in B only" in printed
    assert "香蕉一斤賣22元。[1]" in printed
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "香蕉一斤賣22元" in page and "/*DATA*/" not in page
    show_comparison(*two_runs, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["n"] == 3


def test_unfinished_and_foreign_runs_are_not_compared(
    two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    refused(ragbot("eval", "compare", str(two_runs[0]), str(tmp_path / "nowhere")))
    (two_runs[1] / "summary.json").unlink()
    assert "no finished run" in refused(ragbot("eval", "compare", *map(str, two_runs)))


def test_a_page_is_safe_from_what_it_shows() -> None:
    flip = {"id": "</script><script>alert(1)</script>", "question": "<b>&\u2028"}
    page = comparison_report({"gained": [flip]})
    assert "<script>alert" not in page
    assert "\u2028" not in page
    assert "http-equiv" in page and "default-src 'none'" in page


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl", "--retrieval-only"), "nowhere.jsonl"),
        (("asked.jsonl",), "--out"),
        (("asked.jsonl", "--resume", "--retrieval-only"), "--out"),
        (("asked.jsonl", "--out", "asked.jsonl"), "is a file"),
        (("asked.jsonl", "--retrieval-only", "--types", "nonsense"), "there are fact, none"),
        (("asked.jsonl", "--retrieval-only", "--fail-under", "nonsense=1"), "--fail-under"),
        (("asked.jsonl", "--retrieval-only", "--corpus", "nowhere"), "nowhere"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(questions: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(ragbot("eval", *arguments))


def test_a_read_only_folder_is_one_sentence(evaluation: Make, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.joinpath("run").mkdir(mode=0o500)
    with pytest.raises(RagbotError, match="cannot be written"):
        conduct(evaluation(*RIGHT), Output(tmp_path / "run"), silent)


# --- with the packaged models ----------------------------------------------------------------

SMALL = ("--llm", "packaged:qwen2.5-coder-0.5b", "--checker", "packaged:qwen2.5-coder-0.5b")


@needs_shared
@pytest.mark.model
def test_six_questions_twice_and_once_killed_give_the_same(tmp_path: Path) -> None:
    """Reproducible, and a killed run that goes on is as good as an unbroken one."""
    sets = str(SHARED / "questions" / "article_dev.jsonl")
    common = ["eval", sets, "--corpus", str(ARTICLE), "--limit", "6", *SMALL, "--out"]
    whole = ragbot(*common, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-m", "ragbot", *common, str(broken)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and len(answers(broken)) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(answers(broken)) < 6
    assert ragbot(*common, str(broken), "--resume").returncode == 0
    summaries = [
        json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8"))
        for name in ("whole", "broken")
    ]
    assert same(*summaries)
    assert [row["raw"] for row in kept(broken)] == [row["raw"] for row in kept(tmp_path / "whole")]


def answers(folder: Path) -> list[bytes]:
    path = folder / "answers.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


@needs_shared
@pytest.mark.model
def test_a_figure_under_its_threshold_ends_with_1(tmp_path: Path) -> None:
    sets = str(SHARED / "questions" / "article_dev.jsonl")
    common = ("eval", sets, "--corpus", str(ARTICLE), "--retrieval-only", "--json")
    good = ragbot(*common, "--fail-under", "recall@10=0.8")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["retrieval"]["recall@10"] >= 0.8
    short = ragbot(*common, "--fail-under", "recall@1=1", "--out", str(tmp_path / "r"))
    assert short.returncode == 1
    assert "retrieval.recall@1 is 0." in short.stderr


@pytest.mark.model
def test_a_bare_list_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("RuiPath是誰做的？\n", encoding="utf-8")
    done = ragbot("eval", "q.txt", "--corpus", str(ARTICLE), *SMALL, "--out", "run")
    assert done.returncode == 0, done.stderr
    (row,) = kept(tmp_path / "run")
    assert row["answer"] and row["answerable"] is None
    assert row["lang"] == "zh-Hant"
    assert "answer.accuracy" not in done.stdout
    assert "ttft_ms" in done.stdout


@pytest.mark.model
def test_a_judge_gives_its_opinion_apart_from_the_figures(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("華為在什麼時候宣布成立醫療衛生軍團？\n", encoding="utf-8")
    judge = ("--checker", "", "--judge", "packaged:qwen2.5-coder-1.5b")
    done = ragbot("eval", "q.txt", "--corpus", str(ARTICLE), *judge, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary["judge"]) == {"faithfulness", "relevance"}
    (row,) = kept(tmp_path / "run")
    assert row["scores"]["judge_faithfulness"] == summary["judge"]["faithfulness"]
    assert summary["judge"]["faithfulness"] is not None
