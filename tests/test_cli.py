"""The command line as a user meets it: whole processes, whole outputs."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragbot import commands, console
from ragbot.chat import Chat
from ragbot.config import default_cache, load_config
from ragbot.doctor import examine
from ragbot.errors import ConfigError
from ragbot.text import to_language
from tests.conftest import ARTICLE
from tests.fakes import FakeEngine, nothing, reading
from tests.test_bot import ARTICLE as TEXT
from tests.test_bot import BAICHUAN, MakeBot

TOLD = reading(BAICHUAN, "百川智能把資源集中投向醫療。")


def ragbot(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ragbot", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said that ended as a user's mistake should end."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ragbot: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_help_is_instant_and_lists_the_commands() -> None:
    def worked() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        start = worked()
        done = ragbot("--help")
        times.append(worked() - start)
    assert all(
        name in done.stdout
        for name in ("index", "search", "ask", "chat", "verify", "doctor", "eval")
    )
    assert min(times) < 1.0  # 0.15 s of work, however long a busy machine takes for it


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ask", ""), "empty"),
        (("ask", "？"), "empty"),
        (("ask", "a" * 100_000), "shorten it"),
        (("ask", "a\x1b[31m"), "control characters"),
        (("ask", "x", "--corpus", "nowhere"), "nowhere"),
        (("ask", "x", "--top-k", "0"), "top_k"),
        (("ask", "x", "--encoder", "packaged:nonsense"), "e5-small"),
        (("search", "x", "--encoder", "./nowhere"), "nowhere"),
        (("search", "x", "--reranker", "./nowhere"), "The reranker './nowhere'"),
        (("ask", "x", "--corpus", ".", "--reranker", "word"), "no hub id"),
        (("ask", "x", "--corpus", "c", "--doc", "c.txt"), "no document 'c.txt'"),
        (("search", "x", "--corpus", "c", "-d", "a.txt", "-d", "b"), "no document 'b'"),
        (("chat", "--corpus", "c", "-d", "*.pdf"), "'*.pdf'"),
        (("ask", "x", "--corpus", "nowhere", "--doc", "c.txt"), "nowhere"),
        (("index", "nowhere"), "nowhere"),
        (("eval", "nowhere.jsonl", "--retrieval-only"), "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    Path("c").mkdir()
    for name in ("a.txt", "b.txt"):
        Path("c", name).write_text(TEXT, encoding="utf-8")
    assert said in refused(ragbot(*arguments))


def test_an_unknown_variable_is_a_mistake_too() -> None:
    assert "RAGBOT_TYPO" in refused(ragbot("ask", "x", RAGBOT_TYPO="1"))


def test_an_unknown_option_and_no_arguments() -> None:
    assert ragbot("ask", "x", "--nonsense").returncode == 2
    assert ragbot("ask").returncode == 2


def test_the_version_of_everything_is_in_the_doctors_report() -> None:
    done = ragbot("doctor")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "torch" in done.stdout and "no index in index" in done.stdout
    assert f"setting top_k: {load_config().top_k} (default)" in done.stdout


def test_the_doctor_names_the_remedy(tmp_path: Path) -> None:
    findings = {f.subject: f for f in examine(load_config({"encoder": "packaged:nonsense"}))}
    assert findings["index"].remedy == "ragbot index"
    assert "e5-small" in findings["encoder"].remedy
    assert findings["cores"].state == str(os.cpu_count())
    assert "reranker" not in findings


def test_the_doctor_looks_for_a_reranker_that_is_named(tmp_path: Path) -> None:
    for name, well in ((str(tmp_path), True), ("./nowhere", False)):
        findings = {f.subject: f for f in examine(load_config({"reranker": name}))}
        assert name in findings["reranker"].state
        assert (findings["reranker"].remedy == "") == well


# --- verifying -------------------------------------------------------------------------------

PEARS = {
    "marker": 1,
    "doc": "a.txt",
    "paragraph": 2,
    "start": 10,
    "end": 18,
    "quote": "梨一斤賣40元。",
}
QUOTED = {"answer": "梨一斤賣40元。[1]", "abstained": False, "citations": [PEARS]}


def test_saved_answers_are_verified_without_a_model() -> None:
    corpus, answers = Path("a.txt"), Path("answers.jsonl")
    corpus.write_text("蘋果一斤賣31元。\n梨一斤賣40元。", encoding="utf-8")
    answers.write_text(json.dumps(QUOTED), encoding="utf-8")
    done = ragbot("verify", "answers.jsonl", "--corpus", "a.txt")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "1 quote in 1 answer: 1 stands.\n",
        "",
    )
    piped = subprocess.run(
        [sys.executable, "-m", "ragbot", "verify", "-", "-c", ".", "--json"],
        input=json.dumps(QUOTED),
        capture_output=True,
        text=True,
    )
    assert piped.returncode == 0
    assert json.loads(piped.stdout) == {"answers": 1, "quotes": 1, "stand": 1, "problems": []}
    assert not Path("cache").exists() and not Path("index").exists()


def test_a_quote_that_no_longer_stands_is_exit_code_1() -> None:
    Path("a.txt").write_text("梨一斤賣40元。\n蘋果一斤賣31元。", encoding="utf-8")
    Path("answer.json").write_text(json.dumps(QUOTED), encoding="utf-8")
    done = ragbot("verify", "answer.json", "--corpus", "a.txt")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "[1] a.txt, paragraph 2: moved to paragraph 1: 梨一斤賣40元。",
        "1 quote in 1 answer: 0 stand, 1 does not.",
    ]
    done = ragbot("verify", "answer.json", "--corpus", "a.txt", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["stand"]) == (1, 0)
    assert told["problems"][0]["problem"] == "moved"
    assert told["problems"][0]["now"]["paragraph"] == 1


def test_litter_counts_only_where_it_is_kept() -> None:
    litter = "\n".join(("讚", "0", "分享", "讚", "1", "分享"))
    Path("a.txt").write_text(f"{litter}\n梨一斤賣40元。", encoding="utf-8")
    cited = QUOTED | {"citations": [PEARS | {"paragraph": 7, "start": 0, "end": 8}]}
    Path("answer.json").write_text(json.dumps(cited), encoding="utf-8")
    assert ragbot("verify", "answer.json", "-c", "a.txt").returncode == 0
    kept = ragbot("verify", "answer.json", "-c", "a.txt", "--keep-all")
    assert kept.returncode == 1 and "moved within paragraph 7" in kept.stdout


@pytest.mark.parametrize(
    ("content", "corpus", "said"),
    [
        (None, "a.txt", "answer.json cannot be read"),
        ("# Notes", "a.txt", "is not JSON"),
        ("{}", "a.txt", "ask --json"),
        (json.dumps(QUOTED), "nowhere", "no corpus at nowhere"),
        (json.dumps(QUOTED), "answer.json", "not of a known type"),
    ],
)
def test_what_cannot_be_verified_is_a_mistake(content: str | None, corpus: str, said: str) -> None:
    Path("a.txt").write_text("梨一斤賣40元。", encoding="utf-8")
    if content is not None:
        Path("answer.json").write_text(content, encoding="utf-8")
    assert said in refused(ragbot("verify", "answer.json", "--corpus", corpus))


# --- asking ----------------------------------------------------------------------------------


@pytest.fixture
def ask(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """What `ragbot ask` prints over an article."""

    def run(question: str, **shown: bool) -> tuple[str, str]:
        monkeypatch.setattr("ragbot.commands._bot", lambda *_: make_bot(TEXT))
        commands.ask(question, {}, (), commands.Shown(**shown))
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


Ask = Callable[..., tuple[str, str]]


def test_an_answer_is_printed_with_its_sources(ask: Ask, engine: FakeEngine) -> None:
    engine.enqueue(TOLD)
    out, err = ask("百川智能做了什麼？")
    assert out.splitlines() == [
        "百川智能把資源集中投向醫療。[1]",
        "",
        "[1] doc1.txt, paragraph 2",
        f"    >>{BAICHUAN}<<",
    ]
    assert err == ""


def test_a_refusal_is_printed_with_what_comes_nearest(ask: Ask, engine: FakeEngine) -> None:
    engine.enqueue(nothing())
    out, err = ask("百川智能調整業務線的總部在哪裡？")
    assert out.splitlines() == [
        "這些文件沒有提到這個問題的答案。最接近的內容見[1]。",
        "",
        "Nearest, but not an answer:",
        "",
        "[1] doc1.txt, paragraph 2",
        f"    >>{BAICHUAN}<<",
    ]
    assert err == ""


def test_verbose_tells_what_was_searched_for_and_how_sure_it_is(
    ask: Ask, engine: FakeEngine
) -> None:
    engine.enqueue("百川智能做了什么？", TOLD, "Baichuan put its resources into medicine.")
    out, err = ask("What did Baichuan do?", verbose=True)
    assert out.startswith("Baichuan put")
    assert err.splitlines() == ["Searched for: 百川智能做了什么？", "Confidence: 0.90"]


def test_quotes_are_translated_if_asked_for(ask: Ask, engine: FakeEngine) -> None:
    replies = (
        "百川智能做了什么？",
        TOLD,
        "Baichuan put its resources into medicine.",
        "It did so.",
    )
    engine.enqueue(*replies, *replies, TOLD)
    out, _ = ask("What did Baichuan do?", translated=True)
    assert out.splitlines()[-2:] == ["", "[1] means: It did so."]
    out, _ = ask("What did Baichuan do?", translated=True, as_json=True)
    assert json.loads(out)["translations"] == {"1": "It did so."}
    out, _ = ask("百川智能做了什麼？", translated=True, as_json=True)
    assert json.loads(out)["translations"] == {}
    assert engine.replies == []


# --- the chat --------------------------------------------------------------------------------


@pytest.fixture
def chat(make_bot: MakeBot) -> Chat:
    return Chat(make_bot(TEXT))


def test_a_chat_remembers_and_forgets(
    chat: Chat, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.enqueue(TOLD, "百川智能还做了什么？", nothing())
    assert chat.handle("百川智能做了什麼？")
    assert "百川智能把資源集中投向醫療。[1]" in capsys.readouterr().out
    chat.handle("還有呢？")
    assert len(engine.prompts) == 3, "the follow-up was rewritten"
    assert "百川智能做了什么" in to_language(engine.prompts[1][-1].content, "zh-Hans")
    chat.handle("/reset")
    engine.enqueue(nothing())
    chat.handle("還有呢？")
    assert len(engine.prompts) == 4 and engine.replies == []


def test_a_chat_asks_some_documents_only_until_it_is_told_otherwise(
    make_bot: MakeBot, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = Chat(make_bot(TEXT, "別的事。"), ["doc2*"])
    for line, told in (
        ("/reset", False),
        ("/only doc1.txt", True),
        ('/only "doc2.txt"', False),
        ("/only", True),
    ):
        chat.handle(line)
        chat.handle("/reset")
        engine.enqueue(TOLD)
        chat.handle("百川智能做了什麼？")
        assert ("[1]" in capsys.readouterr().out) == told
    chat.handle("/only *")
    assert capsys.readouterr().err == "Asking 2 of the documents: doc1.txt, doc2.txt.\n"
    for unknown in ("/only nothing", '/only "doc1'):
        with pytest.raises(ConfigError):
            chat.handle(unknown)


def test_a_chat_shows_its_sources_and_is_saved(
    chat: Chat, engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chat.handle("/sources")
    assert "no cited answer" in capsys.readouterr().err
    engine.enqueue(TOLD)
    chat.handle("百川智能做了什麼？")
    chat.handle("/sources")
    shown = capsys.readouterr().out
    assert "[1] doc1.txt, paragraph 2" in shown
    assert ">>百川智能調整業務線，把資源集中投向醫療。<<" in shown
    chat.handle(f"/save {tmp_path / 'talk.md'}")
    saved = (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert "**百川智能做了什麼？**" in saved and "paragraph 2" in saved
    chat.handle("/save /nowhere/at/all.md")
    assert "cannot be written" in capsys.readouterr().err


def test_a_chat_shows_and_saves_what_a_refusal_names(
    chat: Chat, engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine.enqueue(nothing())
    chat.handle("百川智能調整業務線的總部在哪裡？")
    assert "[1]" in capsys.readouterr().out
    chat.handle("/sources")
    assert f"Nearest, but not an answer:\n\n[1] doc1.txt, paragraph 2\n    >>{BAICHUAN}<<" in (
        capsys.readouterr().out
    )
    chat.handle(f"/save {tmp_path / 'talk.md'}")
    saved = (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert f"- [1] doc1.txt, paragraph 2: {BAICHUAN}" in saved


def test_a_chat_ends_and_explains_itself(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.handle("") and chat.handle("/nonsense")
    assert "/sources" in capsys.readouterr().err
    assert not chat.handle("/quit")


def test_a_table_in_a_pipe_is_as_wide_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [f"figure {number} of several" for number in range(7)]
    console.print_table(["head"] * len(cells), [cells])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if cells[0] in line]
    assert all(cell in line for cell in cells)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What errors and progress are written to from now on; a fixture's is taken back by pytest."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_a_terminal_is_told_what_comes_nearest_while_it_waits(
    ask: Ask, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch)
    engine.enqueue(TOLD)
    out, _ = ask("百川智能調整業務線做什麼？")
    shown = terminal.getvalue()
    assert f"nearest so far is doc1.txt, paragraph 2:\n{BAICHUAN}" in shown.replace("\r", "")
    assert shown.endswith("\x1b[2K") and out.startswith("百川智能把資源集中投向醫療。[1]")


def test_a_narrow_terminal_is_told_all_of_the_sentence(
    ask: Ask, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "24")
    engine.enqueue(TOLD)
    ask("百川智能調整業務線做什麼？")
    assert BAICHUAN in "".join(line.strip() for line in terminal.getvalue().split("\n"))


def test_markup_in_a_document_is_text(
    make_bot: MakeBot, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.enqueue(reading("價格是[bold]五元[/bold]。", "價格是[bold]五元[/bold]。"))
    talk = Chat(make_bot("價格是[bold]五元[/bold]。[red]"))
    talk.handle("價格是多少？")
    talk.handle("/sources")
    assert "[bold]五元[/bold]" in capsys.readouterr().out


# --- with the packaged models ----------------------------------------------------------------


@pytest.mark.model
def test_the_article_says_march() -> None:
    question = "When did Huawei announce its medical and health corps?"
    done = ragbot("ask", question, "--corpus", str(ARTICLE), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == [
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
        "translations",
    ]
    assert answer["language"] == "en" and not answer["abstained"]
    assert "March" in answer["answer"]
    assert answer["citations"][0]["paragraph"] == 1
    text = ARTICLE.read_text(encoding="utf-8")
    for citation in answer["citations"]:
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert f"[{citation['marker']}]" in answer["answer"]
    assert set(answer["passages"][0]) == {"rank", "doc", "paragraph", "score", "text"}
    assert set(answer["timings"]) == {
        "retrieval_ms",
        "ttft_ms",
        "total_ms",
        "prompt_tokens",
        "completion_tokens",
        "reused_tokens",
    }


@pytest.mark.model
def test_search_prints_its_hits_as_json() -> None:
    done = ragbot("search", "Watson後來怎樣？", "--corpus", str(ARTICLE), "--json", "--top-k", "2")
    results = json.loads(done.stdout)["results"]
    assert [row["rank"] for row in results] == [1, 2]
    assert set(results[0]) == {"rank", "doc", "paragraph", "score", "start", "end", "text"}
    assert results[0]["paragraph"] in (4, 19)


@pytest.mark.model
def test_what_the_article_does_not_say_is_not_invented() -> None:
    done = ragbot("ask", "華為醫療軍團的總部設在哪裡？", "--corpus", str(ARTICLE), "--json")
    answer = json.loads(done.stdout)
    assert answer["abstained"] and answer["citations"] == []
    assert "沒有" in answer["answer"]


@pytest.mark.model
def test_nothing_reports_home(tmp_path: Path) -> None:
    cache = os.environ.get("RAGBOT_CACHE") or str(default_cache())
    env = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "RAGBOT_CACHE": cache, "CI": ""}
    done = ragbot("search", "大模型", "--corpus", str(ARTICLE), **env)
    assert done.returncode == 0, done.stderr
    # ONNX Runtime's telemetry keeps its queue in the home folder.
    assert not list(tmp_path.rglob("*icrosoft*"))


@pytest.mark.model
def test_a_changed_corpus_is_noticed(tmp_path: Path) -> None:
    corpus = tmp_path / "a.txt"
    for number in ("七", "九"):
        corpus.write_text(f"這家店的幸運數字是{number}。\n別的事。", encoding="utf-8")
        done = ragbot("search", "幸運數字", "--corpus", str(corpus), "--json", "-k", "1")
        assert number in json.loads(done.stdout)["results"][0]["text"]


@pytest.mark.model
def test_index_tells_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("一段完整的話。", encoding="utf-8")
    (tmp_path / "corpus" / "b.exe").write_bytes(b"MZ")
    done = ragbot("index", "-v")
    assert done.returncode == 0 and "1 documents, 1 chunks" in done.stdout
    assert "b.exe" in done.stderr and "not of a known type" in done.stderr
    damaged = next((tmp_path / "index").glob("generation-*")) / "chunks.jsonl"
    damaged.write_text("", encoding="utf-8")
    assert "ragbot index" in refused(ragbot("search", "x"))
    assert ragbot("index").returncode == 0
    assert ragbot("search", "完整").returncode == 0


@pytest.mark.model
@pytest.mark.parametrize("seconds", [1.5, 2.5, 4.0])
def test_ctrl_c_ends_quietly_with_130(seconds: float) -> None:
    """While the models load, while the prompt is read, while the answer is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ragbot", "ask", "大模型有什麼壁壘？", "--corpus", str(ARTICLE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr


@pytest.mark.apart
@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
def test_ctrl_c_in_the_middle_of_imports_ends_quietly(seconds: float) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ragbot.__main__ as m; print(flush=True); m.main()",
            "doctor",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout and process.stdout.readline() == "\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    # By the signal itself: the command was done, and the interpreter at its end.
    assert process.returncode in (0, 2, 130, -signal.SIGINT) and "Traceback" not in stderr


def test_a_terminal_without_the_characters_is_told_their_numbers(tmp_path: Path) -> None:
    done = ragbot("doctor", "--index", str(tmp_path / "索引"), PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr and "\\u7d22\\u5f15" in done.stdout + done.stderr


@pytest.mark.model
def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m ragbot search 大模型 --corpus {ARTICLE} -k 30 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout and done.stderr == ""
