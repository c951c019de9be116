"""The spans of a question: which there are, what they hold, where they go."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ragbot import tracing
from ragbot.bot import RagBot
from ragbot.engines import connect_engine
from ragbot.errors import ConfigError, ModelError
from ragbot.types import Message
from tests.fakes import FakeEngine, nothing, reading
from tests.served import ANSWER, QUESTION, TEXT
from tests.test_servers import Scripted, scripted

__all__ = ["scripted"]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def kept() -> InMemorySpanExporter:
    """All spans of this process: a provider can be set once, so another's is used if there is one."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    exporter, provider = InMemorySpanExporter(), trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def spans(kept: InMemorySpanExporter) -> Callable[[], list[ReadableSpan]]:
    """What has been recorded since the test began, in the order in which it began."""
    kept.clear()
    return lambda: sorted(kept.get_finished_spans(), key=lambda one: one.start_time or 0)


def tree(spans: list[ReadableSpan]) -> list[tuple[str, str]]:
    """Each span's name with that of the one it is part of."""
    names = {one.context.span_id: one.name for one in spans if one.context}
    return [(one.name, names[one.parent.span_id] if one.parent else "") for one in spans]


def attributes(spans: list[ReadableSpan], name: str) -> dict[str, object]:
    return dict(next(one for one in spans if one.name == name).attributes or {})


def test_a_question_is_one_trace(
    make_bot: Callable[..., RagBot], engine: FakeEngine, spans: Callable[[], list[ReadableSpan]]
) -> None:
    engine.enqueue(reading(ANSWER, ANSWER))
    answer = make_bot(TEXT).ask(QUESTION)
    found = spans()
    assert len({one.context.trace_id for one in found if one.context}) == 1
    assert tree(found) == [
        ("question", ""),
        ("search", "question"),
        ("look", "question"),
        ("chat fake", "look"),
        ("prove", "look"),
    ]
    assert attributes(found, "question") == {
        "ragbot.language": "zh-Hant",
        "ragbot.abstained": False,
        "ragbot.confidence": answer.confidence,
        "ragbot.citations": 1,
    }
    assert attributes(found, "prove") == {"ragbot.claims": 1, "ragbot.proven": 1}
    calls = [one for one in found if one.name == "chat fake"]
    assert all(call.kind is trace.SpanKind.CLIENT for call in calls)
    used = [dict(call.attributes or {}) for call in calls]
    assert {call["gen_ai.operation.name"] for call in used} == {"chat"}
    assert {call["gen_ai.request.model"] for call in used} == {"fake"}
    for kind, total in (
        ("input_tokens", answer.timings.prompt_tokens),
        ("output_tokens", answer.timings.completion_tokens),
        ("cache_read.input_tokens", 0),
    ):
        assert sum(int(str(call[f"gen_ai.usage.{kind}"])) for call in used) == total


def test_a_follow_up_across_languages_has_all_its_parts(
    make_bot: Callable[..., RagBot], engine: FakeEngine, spans: Callable[[], list[ReadableSpan]]
) -> None:
    engine.enqueue(
        "When did Huawei found its corps?",
        "华为什么时候成立军团？",
        reading(ANSWER, ANSWER),
        "Huawei founded its medical corps in March.",
    )
    history = [Message("user", "What does Huawei do?"), Message("assistant", "Phones.")]
    make_bot(TEXT).ask("When did Huawei found its corps?", history=history)
    parts = tree(spans())
    for part in ("rewrite question", "translate question", "search", "look"):
        assert (part, "question") in parts
    assert ("retell", "look") in parts and ("chat fake", "retell") in parts
    assert parts.count(("chat fake", "rewrite question")) == 1


def test_the_look_is_a_span_and_no_text_is_kept(
    make_bot: Callable[..., RagBot],
    engine: FakeEngine,
    spans: Callable[[], list[ReadableSpan]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ragbot.inquiry.probability", lambda signals: 0.1)
    bot = make_bot(*(f"{TEXT}第{n}。" + "別的事很多。" * 30 for n in "一二三"))
    engine.enqueue(nothing())
    bot.ask(QUESTION)
    found = spans()
    assert len([one for one in found if one.name == "look"]) == 1
    assert attributes(found, "question")["ragbot.abstained"] is True
    told = json.dumps([one.to_json() for one in found], ensure_ascii=False)
    assert not any(secret in told for secret in ("華為", "軍團", "doc1"))


def test_question_and_answer_are_kept_when_asked_for(
    make_bot: Callable[..., RagBot],
    engine: FakeEngine,
    spans: Callable[[], list[ReadableSpan]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(tracing.TEXTS, "true")
    engine.enqueue(reading(ANSWER, ANSWER))
    answer = make_bot(TEXT).ask(QUESTION)
    told = attributes(spans(), "question")
    assert (told["ragbot.question"], told["ragbot.answer"]) == (QUESTION, answer.text)


def test_a_failure_is_noted_by_its_kind(
    make_bot: Callable[..., RagBot], engine: FakeEngine, spans: Callable[[], list[ReadableSpan]]
) -> None:
    engine.enqueue(ModelError("The secret is gone."))
    with pytest.raises(ModelError):
        make_bot(TEXT).ask(QUESTION)
    found = spans()
    failed = {one.name: one for one in found if not one.status.is_ok}
    assert set(failed) >= {"question", "look", "chat fake"}
    assert attributes(found, "question")["error.type"] == "ModelError"
    assert "secret" not in json.dumps([one.to_json() for one in found])


def test_a_server_is_told_which_trace_its_work_belongs_to(
    scripted: Callable[..., Scripted],
    make_bot: Callable[..., RagBot],
    spans: Callable[[], list[ReadableSpan]],
) -> None:
    server = scripted(reading(ANSWER, ANSWER).text)
    bot = make_bot(TEXT)
    served = RagBot(bot.retriever, lambda: connect_engine("m", server.url, ""))
    served.ask(QUESTION)
    call = next(one for one in spans() if one.name == "chat m")
    assert call.context and call.attributes
    (parent,) = {head["traceparent"] for head in server.heads[:1]}
    assert parent.split("-")[1:3] == [
        f"{call.context.trace_id:032x}",
        f"{call.context.span_id:016x}",
    ]
    assert call.attributes["server.address"] == server.url


def test_nothing_is_done_where_nobody_traces() -> None:
    code = """
import sys
from ragbot import tracing
tracing.turn_on()
with tracing.span("a"):
    tracing.note({"b": 1})
assert tracing.headers() == {} and not any("opentelemetry" in name for name in sys.modules)
tracing.turn_off()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- where they go -------------------------------------------------------------------------------

TRACED = """
from ragbot import tracing
tracing.turn_on()
with tracing.span("outer"):
    with tracing.span("inner"):
        print("answer")
"""


def traced(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, cwd=ROOT, env=env
    )


def test_the_console_is_standard_error_a_line_a_span() -> None:
    done = traced(OTEL_TRACES_EXPORTER="console")
    assert done.stdout == "answer\n"
    inner, outer = map(json.loads, done.stderr.splitlines())
    assert inner["parent_id"] == outer["context"]["span_id"]
    assert outer["resource"]["attributes"]["service.name"] == "ragbot"


class Collector(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        Collector.got.append((self.path, self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    httpd = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_spans_reach_a_collector_before_the_end(collector: str) -> None:
    done = traced(OTEL_EXPORTER_OTLP_ENDPOINT=collector, OTEL_EXPORTER_OTLP_COMPRESSION="none")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    ((path, body),) = Collector.got
    assert path == "/v1/traces" and b"outer" in body and b"inner" in body and b"ragbot" in body


@pytest.mark.parametrize(
    "env", [{"OTEL_SERVICE_NAME": "mine"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}]
)
def test_a_name_of_its_own_is_kept(env: dict[str, str]) -> None:
    done = traced(OTEL_TRACES_EXPORTER="console", **env)
    told = json.loads(done.stderr.splitlines()[0])
    assert told["resource"]["attributes"]["service.name"] == "mine"


def test_the_system_can_be_kept_out() -> None:
    done = traced(OTEL_TRACES_EXPORTER="console", OTEL_SDK_DISABLED="true")
    assert (done.stdout, done.stderr) == ("answer\n", "")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "use otlp, console or none"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http/protobuf",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], said: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        tracing.turn_on()


def test_without_the_library_it_is_said_what_to_install() -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + "from ragbot.__main__ import main; main()", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"OTEL_TRACES_EXPORTER": "console"},
    )
    assert done.returncode == 2 and 'pip install "ragbot[telemetry]"' in done.stderr
    assert done.stderr.count("\n") == 1
