"""The HTTP API as its clients see it: OpenAI's format, search, errors, clients who hang up."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from openai import APIError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletion
from starlette.testclient import TestClient

from ragbot.bot import RagBot
from ragbot.errors import ModelError
from tests.fakes import reading
from tests.served import ANSWER, QUESTION, TEXT, Clerk, running, site, until

CHAT = "/v1/chat/completions"


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


@pytest.fixture
def bot(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot(TEXT, "天氣很好，山上沒有雲。")


@pytest.fixture
def client(bot: RagBot) -> Iterator[TestClient]:
    with TestClient(site(bot), "http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def address(bot: RagBot) -> Iterator[str]:
    with running(site(bot)) as address:
        yield address


def asking(*said: Any, **fields: Any) -> dict[str, Any]:
    """A request: questions and answers in turn, a question the last."""
    turns = said or (QUESTION,)
    roles = ["user" if (len(turns) - n) % 2 else "assistant" for n in range(len(turns))]
    messages = [dict(role=r, content=c) for r, c in zip(roles, turns, strict=True)]
    return {"model": "ragbot", "messages": messages} | fields


def events(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


# --- answers --------------------------------------------------------------------------------------


def test_an_answer_has_openais_form_and_its_proof(client: TestClient, bot: RagBot) -> None:
    reply = client.post(CHAT, json=asking())
    assert reply.status_code == 200
    found = reply.json()
    assert ChatCompletion.model_validate(found, strict=True).model == "ragbot"
    (choice,) = found["choices"]
    message = choice["message"]
    assert message["content"] == ANSWER.rstrip("。") + "。[1]" and message["role"] == "assistant"
    assert not message["abstained"] and message["confidence"] == 0.9
    assert message["language"] == "zh-Hant" and message["related"] == []
    (cited,) = message["citations"]
    document = bot.retriever.index.documents[cited["doc"]]
    assert document.text[cited["start"] : cited["end"]] == cited["quote"] == ANSWER
    assert cited["title"] == document.title and cited["marker"] == cited["paragraph"] == 1
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_a_refusal_says_so(client: TestClient, engine: Clerk) -> None:
    engine.refuse()
    message = client.post(CHAT, json=asking()).json()["choices"][0]["message"]
    assert message["abstained"] and message["citations"] == []
    assert all(set(one) >= {"doc", "title", "quote"} for one in message["related"])


@pytest.mark.parametrize("usage", [None, False, True])
def test_a_stream_has_openais_chunks_and_the_proof_in_the_last(
    client: TestClient, usage: bool | None
) -> None:
    whole = client.post(CHAT, json=asking()).json()
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    reply = client.post(CHAT, json=asking(stream=True, **options))
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(reply.text)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1 and chunks[0]["id"] != whole["id"]
    if usage:
        last = chunks.pop()
        assert last["choices"] == [] and last["usage"] == whole["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    expected = whole["choices"][0]["message"]
    assert "".join(delta.get("content", "") for delta in deltas) == expected["content"]
    proof = {key: expected[key] for key in deltas[-1]}
    assert deltas[-1] == proof and set(proof) == {
        *("citations", "abstained", "related", "confidence", "language")
    }
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.3, "max_tokens": 5, "seed": 1, "user": "me", "top_p": 1, "stop": ["x"]},
        {"n": 1, "tools": [], "response_format": {"type": "text"}, "stream": False},
        {"n": None, "tools": None, "response_format": None, "stream": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": p} for p in QUESTION.split("時")],
                }
            ]
        },
        {"messages": [{"role": "user", "content": QUESTION, "name": "me"}]},
        {
            "messages": [
                {"role": "system", "content": "Answer like a pirate."},
                {"role": "developer", "content": "And in French."},
                {"role": "user", "content": QUESTION},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": "…"},
            ]
        },
        {"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": QUESTION}]},
    ],
)
def test_what_clients_send_is_understood(
    client: TestClient, engine: Clerk, fields: dict[str, Any]
) -> None:
    reply = client.post(CHAT, json=asking() | fields)
    assert reply.status_code == 200, reply.text
    assert "[1]" in reply.json()["choices"][0]["message"]["content"]
    prompts = "".join(message.content for prompt in engine.prompts for message in prompt)
    assert "pirate" not in prompts and "French" not in prompts


def test_what_was_said_before_makes_a_follow_up(client: TestClient, engine: Clerk) -> None:
    said = "RuiPath 是什麼？", "一個模型。[1]", "誰做的？"
    assert client.post(CHAT, json=asking(*said)).status_code == 200
    rewriting = engine.prompts[0][-1].content
    assert all(text.rstrip("。[1]") in rewriting for text in said)


def test_an_answer_with_markup_is_told_as_it_is(
    make_bot: Callable[..., RagBot], engine: Clerk
) -> None:
    text = "<script>alert(1)</script>在3月由<b onclick=x>華為</b>成立醫療衛生軍團。"
    engine.reply = reading(text, text)
    with TestClient(site(make_bot(text)), "http://localhost") as client:
        reply = client.post(CHAT, json=asking())
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.json()["choices"][0]["message"]["citations"][0]["quote"] == text


# --- some documents -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("documents", "told"),
    [(None, True), (["doc1.txt"], True), (["*1.txt", "doc2*"], True), (["doc2.txt"], False)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_from_the_documents_that_are_asked(
    client: TestClient, documents: Any, told: bool, stream: bool
) -> None:
    reply = client.post(CHAT, json=asking(documents=documents, stream=stream))
    assert reply.status_code == 200 and ("doc1.txt" in reply.text) == told


def test_passages_are_of_the_documents_that_are_asked(client: TestClient) -> None:
    body = {"query": QUESTION, "documents": ["doc2.txt"]}
    hits = client.post("/v1/search", json=body).json()["hits"]
    assert [hit["document"] for hit in hits] == ["doc2.txt"]


@pytest.mark.parametrize(
    ("documents", "refusal"),
    [
        (["doc1.txt", "doc3.txt"], (400, "unknown_document", "documents")),
        (["../doc1.txt"], (400, "unknown_document", "documents")),
        ([], (400, "invalid_value", "documents")),
        (["doc1.txt"] * 101, (400, "invalid_value", "documents")),
        ("doc1.txt", (400, "invalid_value", "documents")),
        ([""], (400, "invalid_value", "documents.0")),
        (["x" * 1001], (400, "invalid_value", "documents.0")),
        ([1], (400, "invalid_value", "documents.0")),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/search"])
def test_documents_that_cannot_be_asked_are_refused(
    client: TestClient, engine: Clerk, path: str, documents: Any, refusal: tuple[int, str, str]
) -> None:
    reply = client.post(path, json=asking() | {"query": QUESTION, "documents": documents})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == refusal
    assert engine.asked == []


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (asking(model="gpt-4o"), (404, "model_not_found", "model")),
        (asking(n=2), (400, "invalid_value", "n")),
        (asking(tools=[{"type": "function"}]), (400, "invalid_value", "tools")),
        (asking(functions=[{}]), (400, "invalid_value", "functions")),
        (
            asking(response_format={"type": "json_object"}),
            (400, "invalid_value", "response_format.type"),
        ),
        (asking(messages=[]), (400, "invalid_value", "messages")),
        (asking(messages="hello"), (400, "invalid_value", "messages")),
        (
            asking(messages=[{"role": "king", "content": "x"}]),
            (400, "invalid_value", "messages.0.role"),
        ),
        (asking(messages=[{"role": "system", "content": "x"}]), (400, "invalid_question", None)),
        (asking(" ？ "), (400, "invalid_question", None)),
        (asking("a\0b"), (400, "invalid_question", None)),
        (asking("長" * 2001), (400, "invalid_question", None)),
        (asking(None), (400, "invalid_question", None)),
        ({"messages": [{"role": "user", "content": QUESTION}]}, (400, "invalid_value", "model")),
        ({"model": "ragbot"}, (400, "invalid_value", "messages")),
        ([], (400, "invalid_value", None)),
        (None, (400, "invalid_value", None)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused(
    client: TestClient, engine: Clerk, body: Any, refusal: tuple[int, str, str | None], stream: bool
) -> None:
    if isinstance(body, dict):
        body = body | {"stream": stream}
    reply = client.post(CHAT, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == refusal
    assert error["type"] == "invalid_request_error" and error["message"].endswith(".")
    assert engine.asked == []


def test_an_image_is_refused_by_name_of_its_place(client: TestClient) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}
    reply = client.post(CHAT, json=asking([{"type": "text", "text": QUESTION}, image]))
    assert reply.status_code == 400 and ".1.type" in reply.json()["error"]["param"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/redoc", 404, "not_found"),
        ("GET", "/v1/models/gpt-4o", 404, "model_not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("PUT", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("OPTIONS", CHAT, 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    reply = client.request(method, path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert ("allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize(
    "given",
    [
        dict(content=b"{", headers={"content-type": "application/json"}),
        dict(content=b"\xff\xfe", headers={"content-type": "application/json"}),
        dict(content=b"[" * 100_000, headers={"content-type": "application/json"}),
        dict(
            content=b"model=ragbot", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        dict(content=b"", headers={"content-type": "application/json"}),
    ],
)
def test_what_is_no_json(client: TestClient, given: dict[str, Any]) -> None:
    reply = client.post(CHAT, **given)
    assert reply.status_code == 400 and set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ModelError("The model file is gone: name another."), 503, "The model file is gone"),
        (RuntimeError("secret: /etc/passwd"), 500, "Something went wrong inside ragbot"),
    ],
)
def test_the_generators_failure_is_a_sentence(
    client: TestClient, engine: Clerk, error: Exception, status: int, said: str
) -> None:
    engine.fails["a1"] = error
    reply = client.post(CHAT, json=asking(QUESTION + "a1"))
    assert reply.status_code == status and reply.json()["error"]["type"] == "server_error"
    assert reply.json()["error"]["message"].startswith(said)
    stream = client.post(CHAT, json=asking(QUESTION + "a1", stream=True)).text
    assert events(stream)[-1] == reply.json()
    assert not any(word in reply.text + stream for word in ("secret", "Traceback", "RuntimeError"))
    assert client.post(CHAT, json=asking()).status_code == 200


# --- the rest -------------------------------------------------------------------------------------


def test_the_models_are_listed(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list" and [one["id"] for one in listed["data"]] == ["ragbot"]
    assert client.get("/v1/models/ragbot").json() == listed["data"][0]


@pytest.mark.parametrize("top_k", [1, 2, 50])
def test_passages_are_found(client: TestClient, bot: RagBot, engine: Clerk, top_k: int) -> None:
    hits = client.post("/v1/search", json={"query": QUESTION, "top_k": top_k}).json()["hits"]
    assert len(hits) == min(top_k, 2) and hits[0]["document"] == "doc1.txt"
    assert [one["score"] for one in hits] == sorted((one["score"] for one in hits), reverse=True)
    for hit in hits:
        text = bot.retriever.index.documents[hit["document"]].text
        assert text[hit["start"] : hit["end"]] == hit["text"]
    assert engine.asked == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "？"},
        {"query": "x" * 2001},
        {"query": QUESTION, "top_k": 0},
        {"query": QUESTION, "top_k": 51},
        {"query": QUESTION, "top_k": "3"},
        {"query": ["x"]},
    ],
)
def test_a_bad_search_is_refused(client: TestClient, body: Any) -> None:
    reply = client.post("/v1/search", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"


def test_health_and_figures(client: TestClient, engine: Clerk) -> None:
    assert client.get("/healthz").json() == {
        "status": "ok", "documents": 2, "chunks": 2, "waiting": 0,
    }  # fmt: skip
    client.post(CHAT, json=asking())
    engine.refuse()
    client.post(CHAT, json=asking())
    for path in ("/one", "/two"):
        client.get(path)
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.text.splitlines()
    assert f'ragbot_requests_total{{method="POST",route="{CHAT}",status="200"}} 2.0' in lines
    assert 'ragbot_requests_total{method="GET",route="other",status="404"} 2.0' in lines
    assert 'ragbot_questions_total{outcome="answered"} 1.0' in lines
    assert 'ragbot_questions_total{outcome="refused"} 1.0' in lines
    assert "ragbot_first_text_seconds_count 2.0" in lines and "ragbot_queue_length 0.0" in lines
    tokens = [line for line in lines if line.startswith("ragbot_tokens_total")]
    assert len(tokens) == 2 and all(float(line.split()[1]) > 0 for line in tokens)


def test_the_document_tells_of_every_route_and_no_other_host(client: TestClient) -> None:
    reply = client.get("/openapi.json")
    document = reply.json()
    assert set(document["paths"]) == {
        CHAT, "/v1/models", "/v1/models/{model}", "/v1/search", "/healthz", "/metrics",
    }  # fmt: skip
    assert "://" not in reply.text
    for path in document["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"] and operation["description"]
    assert client.post(CHAT, json=example(document, "ChatRequest")).status_code == 200
    assert client.post("/v1/search", json=example(document, "SearchRequest")).status_code == 200


def example(document: dict[str, Any], model: str) -> Any:
    return document["components"]["schemas"][model]["examples"][0]


# --- over a real connection -----------------------------------------------------------------------


def test_the_official_client_works_unchanged(address: str, engine: Clerk) -> None:
    openai = OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    (model,) = openai.models.list().data
    asked: Any = dict(model=model.id, messages=[{"role": "user", "content": QUESTION}])
    whole = openai.chat.completions.create(**asked)
    message: Any = whole.choices[0].message
    assert message.citations[0]["quote"] == ANSWER and "[1]" in message.content
    chunks = list(openai.chat.completions.create(**asked, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    last: Any = chunks[-1].choices[0].delta
    assert "".join(pieces) == message.content and last.citations == message.citations
    with openai.chat.completions.stream(**asked) as stream:
        final: Any = stream.get_final_completion().choices[0].message
    assert final.content == message.content and final.citations == message.citations
    with pytest.raises(NotFoundError, match="does not exist"):
        openai.chat.completions.create(**asked | {"model": "gpt-4o"})
    engine.fails["a1"] = ModelError("The model is gone.")
    asked["messages"][0]["content"] += "a1"
    with pytest.raises(APIError, match="The model is gone"):
        list(openai.chat.completions.create(**asked, stream=True))


def test_too_many_at_once_are_told_when_to_come_back(address: str, engine: Clerk) -> None:
    engine.gate.clear()
    waiting = [hang(address, asking(QUESTION + name, stream=True)) for name in ("a1", "b2")]
    until(lambda: engine.asked and health(address)["waiting"] == 1)
    reply = httpx.post(address + CHAT, json=asking())
    assert reply.status_code == 429 and reply.json()["error"]["code"] == "too_many_at_once"
    assert int(reply.headers["retry-after"]) > 0
    for connection in waiting:
        connection.close()
    until(lambda: health(address)["waiting"] == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_is_not_answered(address: str, engine: Clerk, stream: bool) -> None:
    engine.gate.clear()
    first = hang(address, asking(QUESTION + "a1", stream=stream))
    until(lambda: engine.asked == ["a1"])
    second = hang(address, asking(QUESTION + "b2", stream=stream))
    until(lambda: health(address)["waiting"] == 1)
    second.close()  # in the queue
    until(lambda: health(address)["waiting"] == 0)
    first.close()  # at work, and the gate stays shut
    until(lambda: engine.left == ["a1"])
    engine.gate.set()
    assert httpx.post(address + CHAT, json=asking()).status_code == 200
    assert engine.asked == ["a1", ""]


def test_who_waits_is_told_his_place(address: str, engine: Clerk) -> None:
    engine.gate.clear()
    first = hang(address, asking(QUESTION + "a1", stream=True))
    until(lambda: engine.asked)
    second = hang(address, asking(QUESTION + "b2", stream=True))
    second.settimeout(15)
    told = b""
    while b": waiting 1" not in told:
        told += second.recv(4096)
    engine.gate.set()
    while b"[DONE]" not in told:
        told += second.recv(4096)
    assert b": working" in told and b'"finish_reason": "stop"' in told
    first.close()
    second.close()


def health(address: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{address}/healthz").json()
    return found


def hang(address: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which a question was asked, and nothing read yet."""
    place = urlsplit(address)
    connection = socket.create_connection((str(place.hostname), place.port or 0))
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection
