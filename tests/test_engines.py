"""The three generators. Streams and errors on real sockets; the packaged models for real."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, get_args

import httpx
import pytest

from ragbot.config import load_config
from ragbot.engines import Engine, connect_engine, open_engine
from ragbot.engines.base import drain
from ragbot.engines.http import PROBABILITIES, HttpEngine
from ragbot.engines.llamacpp import _SLOTS, LlamaCppEngine
from ragbot.engines.states import States
from ragbot.errors import ConfigError, ModelError, ServerError
from ragbot.models import resolve_generator
from ragbot.prompts import ANSWER, SENTENCE, Written, reading_form
from ragbot.types import Message, Token, Usage
from tests.pages import wait_until
from tests.toy import write_toy_model

ASK = [Message("system", "Answer in one word."), Message("user", "What is the capital of France?")]


# --- the loop between a worker and its reader ------------------------------------------------


def test_pieces_arrive_in_order_and_the_usage_at_the_end() -> None:
    def work(emit, stop):  # type: ignore[no-untyped-def]
        emit("甲")
        emit("乙")
        return Usage(1, 2)

    stream = drain(work, None)
    pieces = []
    with pytest.raises(StopIteration) as end:
        while True:
            pieces.append(next(stream))
    assert pieces == ["甲", "乙"] and end.value.value == Usage(1, 2)


def test_a_workers_exception_reaches_the_reader() -> None:
    def work(emit, stop):  # type: ignore[no-untyped-def]
        emit("甲")
        raise ModelError("broken")

    stream = drain(work, None)
    assert next(stream) == "甲"
    with pytest.raises(ModelError, match="broken"):
        next(stream)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_worker_is_told_when_nobody_reads_any_more(how: str) -> None:
    told = threading.Event()

    def work(emit, stop):  # type: ignore[no-untyped-def]
        emit("甲")
        if stop.wait(10):
            told.set()
        return Usage()

    cancel = threading.Event()
    stream = drain(work, cancel)
    next(stream)
    if how == "close":
        stream.close()
    else:
        cancel.set()
        assert list(stream) == []
    assert told.wait(5)


# --- a server on a real socket that behaves badly --------------------------------------------


def probabilities(*likeliest: tuple[str, float]) -> object:
    """Of one token, which is the first of these, as a server tells them."""
    tops = [{"token": token, "logprob": logprob} for token, logprob in likeliest]
    return {"content": [tops[0] | {"top_logprobs": tops}]}


class Handler(BaseHTTPRequestHandler):
    left = threading.Event()
    asked: ClassVar[list[dict[str, Any]]] = []
    refuses: ClassVar[dict[str, str]] = {}  # of what "strict" knows nothing, and what it says

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.asked.append(body)
        model = self.path.split("/")[1]
        if not body.get("stream"):
            self.reply(model)
            return
        refused = next((said for name, said in Handler.refuses.items() if name in body), "")
        if model.isdigit() or (model == "strict" and refused):
            self.send_response(int(model) if model.isdigit() else 400)
            self.end_headers()
            self.wfile.write(
                json.dumps({"error": {"message": refused or "no\nsuch thing"}}).encode()
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for word in ("一", "二", "三"):
                self.send(word)
                if model == "endless":
                    while True:
                        self.send(word)
                        time.sleep(0.02)
            if model == "broken":
                self.connection.close()
                return
            if model == "likely":
                self.send("四", probabilities(("四", -0.1), ("无", -2.5)))
            if model != "cut":
                self.send("", end="abort" if model == "abort" else "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            Handler.left.set()

    def reply(self, model: str) -> None:
        """A whole reply, with the probabilities of its first token or, from "bare", without."""
        choice = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": "Yes"},
            "logprobs": None if model == "bare" else probabilities(("Yes", -0.1), (" no", -2.5)),
        }
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        data = json.dumps(reply | {"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send(self, word: str, probabilities: object = None, end: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": end}
        chunk = {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice | {"logprobs": probabilities}],
        }
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def test_a_servers_words_are_passed_on(server: str) -> None:
    assert "".join(connect_engine("m", f"{server}/good", "").stream(ASK, max_tokens=9)) == "一二三"


def test_a_first_token_comes_with_its_rivals(server: str) -> None:
    engine = HttpEngine("m", f"{server}/good")
    assert engine.first_token(ASK) == {"Yes": -0.1, " no": -2.5}
    with pytest.raises(ModelError, match="gives no token probabilities"):
        HttpEngine("m", f"{server}/bare").first_token(ASK)


def test_a_servers_first_tokens_come_with_their_rivals(server: str) -> None:
    text, usage = whole(HttpEngine("m", f"{server}/likely"), ASK)
    assert text == "一二三四"
    assert usage.tokens == (Token("四", {"四": -0.1, "无": -2.5}),)
    assert whole(HttpEngine("m", f"{server}/good"), ASK)[1].tokens == ()


def test_a_server_is_asked_for_a_grammar_by_either_name(server: str) -> None:
    form = "root ::= [0-9]"
    assert "".join(HttpEngine("m", f"{server}/good").stream(ASK, max_tokens=9, form=form))
    asked = Handler.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["model"]) == (9, 0, "m")
    assert asked["grammar"] == form and asked["structured_outputs"] == {"grammar": form}
    assert asked["logprobs"] and not {"id_slot", "cache_prompt"} & set(asked)


REFUSALS = [
    ("structured_outputs", "Extra inputs are not permitted: structured_outputs", []),
    ("grammar", "Unrecognized request argument supplied: grammar", ["grammar"]),
    ("top_logprobs", "Unknown parameter: 'top_logprobs'.", ["grammar", "logprobs"]),
    (
        "stream_options",
        "stream_options is not supported",
        ["grammar", "logprobs", "stream_options"],
    ),
]


def test_what_a_server_refuses_is_left_out_and_said_once(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One that refuses one more of what it may lack at each step, as it is asked by name."""
    Handler.refuses = {name: said for name, said, _ in REFUSALS}
    engine = HttpEngine("m", f"{server}/strict")
    for _ in range(2):
        asked = len(Handler.asked)
        text, usage = whole(engine, ASK, form='root ::= "一" [0-9]')
        assert text == "一二三" and usage.tokens == ()
    assert len(Handler.asked) == asked + 1, "what was refused is asked for no more"
    said = [record.getMessage() for record in caplog.records]
    assert [re.findall("refuses (.*?):", line) for line in said] == [
        ["grammar"], ["logprobs"], ["stream_options"]
    ]  # fmt: skip
    assert all(f"{server}/strict" in line for line in said)


def test_what_a_server_ignores_is_said_once(server: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = HttpEngine("m", f"{server}/good")
    for _ in range(2):
        whole(engine, ASK, form='root ::= "句子：" [^\\n]+')
    said = [record.getMessage() for record in caplog.records]
    assert [re.findall("ignores (.*?):", line) for line in said] == [["grammar"], ["logprobs"]]
    caplog.clear()
    whole(HttpEngine("m", f"{server}/likely"), ASK, form='root ::= ("一" [^\\n]+)')
    assert caplog.records == []


@pytest.mark.parametrize("model", ["cut", "abort"])
def test_a_reply_without_an_end_does_not_pass_for_whole(server: str, model: str) -> None:
    with pytest.raises(ServerError, match="broke off"):
        whole(HttpEngine("m", f"{server}/{model}"), ASK)


@pytest.mark.parametrize(
    ("path", "said"),
    [("401", "RAGBOT_LLM_API_KEY"), ("404", "serves the model 'm'"), ("400", "see its log")],
)
def test_a_refusal_is_one_sentence_with_a_remedy(server: str, path: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        list(connect_engine("m", f"{server}/{path}", "").stream(ASK, max_tokens=9))
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_no_server_at_all() -> None:
    with pytest.raises(ModelError, match=r"No server answers at .*RAGBOT_BASE_URL"):
        list(connect_engine("m", "http://127.0.0.1:9/v1", "").stream(ASK, max_tokens=9))


def test_leaving_closes_the_connection(server: str) -> None:
    stream = connect_engine("m", f"{server}/endless", "").stream(ASK, max_tokens=9)
    next(stream)
    start = time.perf_counter()
    stream.close()
    assert time.perf_counter() - start < 0.5
    assert Handler.left.wait(5)


# --- opening ---------------------------------------------------------------------------------


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a GGUF file"):
        open_engine("auto", str(tmp_path / "a.gguf"), context=1024, threads=0)
    with pytest.raises(ModelError, match="cannot be read"):
        open_engine("auto", str(tmp_path / "b.gguf"), context=1024, threads=0)


def test_a_file_that_only_begins_like_one(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\1" * 5000)
    with pytest.raises(ModelError, match=r"cannot load .*a\.gguf"):
        open_engine("auto", str(tmp_path / "a.gguf"), context=1024, threads=0)


def test_a_vocabulary_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "toy.gguf", [*CHATML, "<0x85>"])
    with pytest.raises(ModelError, match=r"toy\.gguf is damaged: .* has '<0x85>' twice"):
        open_engine("auto", str(path), context=1024, threads=0)


def test_an_engine_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs GGUF files"):
        open_engine("llamacpp", "some/folder", context=1024, threads=0)
    with pytest.raises(ConfigError, match="Unknown engine"):
        open_engine("abacus", "some/folder", context=1024, threads=0)


# --- llama.cpp, with a toy of a model --------------------------------------------------------


CHATML = ["<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("toy") / "toy.gguf", CHATML)


def kind(number: int, asked: str) -> list[Message]:
    """A prompt of one of several kinds: instructions and an example, longer than a batch."""
    shown = [Message("user", f"example {number}"), Message("assistant", "yes")]
    return [
        Message("system", f"instructions {number} " * (10 + number)),
        *shown,
        Message("user", asked),
    ]


def test_an_answer_does_not_depend_on_those_before(toy: Path, tmp_path: Path) -> None:
    """Kinds of prompts that are prefixes of others, some broken off, in two processes' worth."""
    engine = LlamaCppEngine(toy, context=2048, threads=1, folder=tmp_path)
    asked = [kind(number, text) for number in range(_SLOTS + 2) for text in ("ab", "abc" * 60)]
    asked += [[Message("user", "alone")], [Message("user", "alone, too")]]
    first = [whole(engine, messages, 9) for messages in asked]
    assert len({text for text, _ in first}) > 1 and all(usage.tokens for _, usage in first)
    draw = random.Random(0)
    for place in draw.sample(range(len(asked)), len(asked)):
        cancel = threading.Event()
        threading.Timer(draw.random() / 20, cancel.set).start()
        list(engine.stream(kind(draw.randrange(9), "x" * 500), max_tokens=9, cancel=cancel))
        wait_until(lambda: idle(engine))
        assert same(whole(engine, asked[place], 9), first[place])
    assert engine.first_token(asked[0]) == engine.first_token(asked[0])
    for folder in (tmp_path, None):
        fresh = LlamaCppEngine(toy, context=2048, threads=1, folder=folder)
        again = [whole(fresh, messages, 9) for messages in reversed(asked)]
        assert all(map(same, again, first[::-1]))


def idle(engine: LlamaCppEngine) -> bool:
    """Whether nothing is read any more: a prompt broken off is for a moment, in batches shared with
    those that are asked meanwhile, and those round otherwise."""
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    slots = httpx.get(f"{engine._address}/slots", headers=headers).json()
    return not any(slot["is_processing"] for slot in slots)


def same(one: tuple[str, Usage], other: tuple[str, Usage]) -> bool:
    """Whether text and probabilities are the same, however much had been read before."""
    usages = [replace(usage, reused_tokens=0, tokens=usage.tokens[:8]) for _, usage in (one, other)]
    return one[0] == other[0] and usages[0] == usages[1]


def test_beginnings_read_for_one_context_serve_no_other(toy: Path, tmp_path: Path) -> None:
    for context in (2048, 1024):
        whole(LlamaCppEngine(toy, context=context, threads=1, folder=tmp_path), kind(1, "ab"), 9)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "renamed", "removed"])
def test_a_damaged_state_is_read_anew(toy: Path, tmp_path: Path, harm: str) -> None:
    first = whole(LlamaCppEngine(toy, context=2048, threads=1, folder=tmp_path), kind(1, "ab"), 9)
    (state,) = tmp_path.glob("*/*.state")
    content = state.read_bytes()
    if harm == "cut":
        state.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        state.write_bytes(content[:-99] + bytes([content[-99] ^ 4]) + content[-98:])
    elif harm == "emptied":
        state.write_bytes(b"")
    elif harm == "renamed":  # a whole file, of no use: its checksum fits, its content does not
        state.write_bytes(b"something else")
        checksum = zlib.crc32(b"something else")
        state.rename(state.with_name(f"{state.name.split('-')[0]}-{checksum:08x}.state"))
    else:
        state.unlink()
    again = whole(LlamaCppEngine(toy, context=2048, threads=1, folder=tmp_path), kind(1, "ab"), 9)
    assert same(again, first)
    assert [path.name for path in tmp_path.glob("*/*")] == [state.name]


def test_states_keep_within_bounds(tmp_path: Path) -> None:
    """The one not used for longest goes first."""
    states = States(tmp_path, budget=30)
    for number, key in enumerate("abc"):
        part = states.begin(key)
        (tmp_path / part).write_bytes(key.encode() * 10)
        states.keep(key, part)
        os.utime(tmp_path / str(states.find(key)), (number, number))
    assert states.find("a")
    part = states.begin("d")
    (tmp_path / part).write_bytes(b"d" * 10)
    states.keep("d", part)
    assert [key for key in "abcd" if states.find(key)] == ["a", "c", "d"]


def test_where_states_cannot_be_kept_all_is_read_all_the_same(toy: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    engine = LlamaCppEngine(toy, context=2048, threads=1, folder=blocked)
    assert whole(engine, kind(1, "ab"), 9)[0]
    assert blocked.read_text() == "in the way"


def test_first_tokens_come_with_their_rivals(toy: Path) -> None:
    engine = LlamaCppEngine(toy, context=2048, threads=1)
    text, usage = whole(engine, kind(1, "ab"), 20)
    assert usage.completion_tokens <= 20 and len(usage.tokens) <= 20
    for token in usage.tokens:
        assert token.text in token.likeliest and len(token.likeliest) <= PROBABILITIES
        assert all(likelihood <= 0 for likelihood in token.likeliest.values())
    assert text


def test_a_form_is_kept_to(toy: Path) -> None:
    engine = LlamaCppEngine(toy, context=2048, threads=1)
    for number in range(3):
        text, _ = whole(
            engine, kind(number, "ab"), 40, 'root ::= "Sentence: " [ab]{3} "\\n" [0-9]{2}'
        )
        assert re.fullmatch(r"Sentence: [ab]{3}\n[0-9]{2}", text)


@pytest.mark.parametrize("said", get_args(Written))
@pytest.mark.parametrize("copies", [1, 3])
def test_a_reading_has_its_form(toy: Path, said: Written, copies: int) -> None:
    """Whatever the model: each label is there, on a line of its own, as often as asked for."""
    engine = LlamaCppEngine(toy, context=2048, threads=1)
    text, _ = whole(engine, kind(0, "ab"), 2000, reading_form(said, copies))
    lines = text.split("\n")
    assert len(lines) == copies + 1
    assert all(line.startswith(SENTENCE[said]) for line in lines[:-1])
    assert lines[-1].startswith(ANSWER[said])


# --- the packaged models ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> str:
    config = load_config()
    return resolve_generator("packaged:qwen2.5-coder-0.5b", config.cache)


@pytest.fixture(scope="module")
def llamacpp(small: str) -> Engine:
    return open_engine("auto", small, context=2048, threads=0)


def whole(
    engine: Engine,
    messages: list[Message],
    max_tokens: int = 12,
    form: str = "",
) -> tuple[str, Usage]:
    stream, text = engine.stream(messages, max_tokens=max_tokens, form=form), ""
    while True:
        try:
            text += next(stream)
        except StopIteration as end:
            return text, end.value


@pytest.mark.model
def test_llama_cpp_answers_the_same_each_time(llamacpp: Engine) -> None:
    text, usage = whole(llamacpp, ASK)
    assert "Paris" in text
    assert usage.prompt_tokens > 10 and 0 < usage.completion_tokens <= 12
    assert whole(llamacpp, ASK)[0] == text


@pytest.mark.model
def test_nothing_lingers(llamacpp: LlamaCppEngine) -> None:
    """The same question, after itself and after another with the same beginning."""
    long = Message("system", "醫療大模型與醫院，" * 40)
    first = llamacpp.first_token([long, Message("user", "說一個數字")])
    llamacpp.first_token([long, Message("user", "說一個名字")])
    assert llamacpp.first_token([long, Message("user", "說一個數字")]) == first


@pytest.mark.model
def test_chinese_comes_in_whole_characters(llamacpp: Engine) -> None:
    text, _ = whole(llamacpp, [Message("user", "請用繁體中文介紹醫院的醫療。")], 40)
    assert "醫" in text and "\ufffd" not in text


@pytest.mark.model
def test_leaving_frees_llama_cpp_while_it_is_reading(llamacpp: Engine) -> None:
    long = [Message("user", "醫療大模型與醫院。" * 150)]
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    assert list(llamacpp.stream(long, max_tokens=5, cancel=cancel)) == []
    start = time.perf_counter()
    whole(llamacpp, [Message("user", "Hi")], 1)
    assert time.perf_counter() - start < 6  # reading it to its end takes far longer


@pytest.mark.model
def test_a_prompt_beyond_the_context_is_refused_and_the_engine_lives(llamacpp: Engine) -> None:
    with pytest.raises(ModelError):
        whole(llamacpp, [Message("user", "word " * 5000)])
    assert whole(llamacpp, ASK)[0]


@pytest.mark.model
def test_the_client_talks_to_a_real_server_under_a_key(llamacpp: Engine) -> None:
    assert isinstance(llamacpp, LlamaCppEngine)
    other = connect_engine("any", llamacpp.base_url, llamacpp.api_key)
    assert whole(other, ASK)[0] == whole(llamacpp, ASK)[0]
    with pytest.raises(ModelError, match="RAGBOT_LLM_API_KEY"):
        whole(connect_engine("any", llamacpp.base_url, "wrong"), ASK)


@pytest.mark.model
def test_transformers_reads_the_same_file(small: str) -> None:
    engine = open_engine("transformers", small, context=2048, threads=0)
    text, usage = whole(engine, ASK, 6)
    assert "Paris" in text and usage.completion_tokens <= 6
    stream = engine.stream(ASK, max_tokens=200)
    next(stream)
    stream.close()


@pytest.mark.model
def test_transformers_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        open_engine("transformers", str(tmp_path), context=2048, threads=0)
