"""Attacked: what a stranger's path, body, connection or file on the disk may not do."""

from __future__ import annotations

import ast
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import ragbot
from ragbot import store
from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.corpus import load_corpus
from ragbot.errors import CorpusError, StoreError
from ragbot.faiss_index import open_index
from ragbot.lexical import Lexical
from ragbot.web.guard import Rules
from ragbot.workspace import renewed_index
from tests.fakes import FakeEncoder
from tests.served import QUESTION, TEXT, running, site
from tests.test_cli import ragbot as said_by_ragbot
from tests.torture.load import served
from tests.torture.tools import open_files, status

PACKAGE = Path(ragbot.__file__).parent
LINUX = sys.platform.startswith("linux")


# --- nothing that runs is read from the disk -------------------------------------------------

# Modules whose reading may run what was written.
RUNNERS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "runpy",
}
CALLS = {"eval", "exec", "compile", "__import__"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def called(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """The name of what is called, with what it belongs to, and its named arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: word.value for word in node.keywords if word.arg}
            yield ast.unparse(node.func), given


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_source_of_ours_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name == "cluster.py":  # between its own processes, as Ray does it; never from a disk
        return
    assert RUNNERS.isdisjoint(imported(tree))
    for name, given in called(tree):
        assert name not in CALLS, name
        if name.endswith("np.load") or name == "numpy.load":
            assert ast.unparse(given["allow_pickle"]) == "False", name
        if name == "torch.load":
            assert ast.unparse(given["weights_only"]) == "True", name
        assert not name.endswith(("from_pretrained", "SentenceTransformer", "CrossEncoder")) or (
            "trust_remote_code" not in given
        ), name


def test_what_the_walk_looks_for_it_finds() -> None:
    tree = ast.parse("import pickle, numpy as np\nnp.load('x', allow_pickle=True)\neval('1')")
    assert RUNNERS & set(imported(tree)) == {"pickle"}
    assert {"np.load", "eval"} <= {name for name, _ in called(tree)}


PLANTED = """
import io, pickle, sys
import numpy as np
class Evil:
    def __reduce__(self):
        return (print, ("RAN",))
np.save(sys.argv[1], np.array([Evil()], dtype=object), allow_pickle=True)
"""


@pytest.mark.parametrize("name", ["data.csc.index.npy", "indptr.csc.index.npy"])
def test_bm25s_unpickles_nothing(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that would print, were it unpickled, in the place of one of the library's own."""
    Lexical.build(["一個 字 word", "兩個 字 words"]).save(tmp_path / "bm25")
    subprocess.run([sys.executable, "-c", PLANTED, str(tmp_path / "bm25" / name)], check=True)
    with pytest.raises(ValueError, match=r"pickle|Python objects"):
        Lexical.load(tmp_path / "bm25", 2)
    assert "RAN" not in capsys.readouterr().out


def test_an_index_with_a_planted_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("一段話。", encoding="utf-8")
    encoder = FakeEncoder()
    renewed_index(load_config(dict(index=tmp_path / "index")), tmp_path / "a.txt", encoder)
    folder = next((tmp_path / "index").glob("generation-*"))
    for victim in [path for path in folder.rglob("*.npy") if path.is_file()]:
        good = victim.read_bytes()
        subprocess.run([sys.executable, "-c", PLANTED, str(victim)], check=True)
        with pytest.raises(StoreError, match="damaged"):
            open_index(tmp_path / "index", encoder.fingerprint)
        victim.write_bytes(good)
    open_index(tmp_path / "index", encoder.fingerprint)


def test_a_manifest_may_not_name_a_generation_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for elsewhere in ("../b", "/etc", "generation-1/../../b", "", ".."):
        manifest: dict[str, object] = {"generation": elsewhere, "files": {}}
        (tmp_path / "a" / store.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises((StoreError, ValueError)):
            store.verified(tmp_path / "a", store.read_manifest(tmp_path / "a"))


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "corpus", ["../../etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/mem"]
)
@pytest.mark.skipif(not LINUX, reason="these files are Linux's")
def test_a_corpus_that_is_no_document_is_refused(corpus: str) -> None:
    """Who names it may read it anyway: what counts is that it is refused, and at once."""
    begun = time.monotonic()
    with pytest.raises(CorpusError):
        load_corpus(Path(corpus))
    assert time.monotonic() - begun < 5


def test_no_link_leads_out_of_a_corpus(tmp_path: Path) -> None:
    secret, corpus = tmp_path / "secret", tmp_path / "corpus"
    secret.mkdir()
    corpus.mkdir()
    (secret / "s.txt").write_text("秘密。", encoding="utf-8")
    (corpus / "a.txt").write_text("公開。", encoding="utf-8")
    (corpus / "file.txt").symlink_to(secret / "s.txt")
    (corpus / "folder").symlink_to(secret, target_is_directory=True)
    (corpus / "up.txt").symlink_to("../secret/s.txt")
    (corpus / "round").symlink_to(corpus, target_is_directory=True)
    (corpus / "chain.txt").symlink_to(corpus / "file.txt")
    (corpus / "nowhere.txt").symlink_to(corpus / "absent.txt")
    documents = load_corpus(corpus).documents
    assert [document.name for document in documents] == ["a.txt"]


def test_a_null_in_a_path_is_one_sentence(tmp_path: Path) -> None:
    Path("ragbot.toml").write_text('corpus = "a\\u0000b"\n')
    done = said_by_ragbot("index")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


# --- bodies and connections ------------------------------------------------------------------


@pytest.fixture
def address(make_bot: Callable[..., RagBot]) -> Iterator[str]:
    """A server that gives two seconds to a body, and to questions as many as come."""
    with running(site(make_bot(TEXT), Rules(rate=0, seconds=2.0))) as served_at:
        yield served_at


def connected(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=30)


HALF = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)
SLOW = {
    "no request": b"",
    "half a line": b"GET /heal",
    "half its headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "half its body": HALF,
    "no end of chunks": HALF.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked")[:-1]
    + b"1\r\n{\r\n",
}


@pytest.mark.parametrize("how", SLOW)
def test_visitors_who_never_finish_hold_up_nobody(address: str, how: str) -> None:
    """A hundred of them at once; the others are answered as ever meanwhile."""
    with ExitStack() as held:
        for _ in range(100):
            held.enter_context(connected(address)).sendall(SLOW[how])
        for _ in range(3):
            begun = time.monotonic()
            reply = httpx.post(f"{address}/v1/search", json={"query": QUESTION}, timeout=20)
            assert reply.status_code == 200 and reply.json()["hits"]
            assert time.monotonic() - begun < 10


def test_a_body_that_does_not_come_is_given_up(address: str) -> None:
    with connected(address) as slow:
        slow.sendall(HALF)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 99999999999",
        "Content-Length: -1",
        "Content-Length: x",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "X-Long: " + "x" * 200_000,
        "\r\n".join(f"X-{number}: 1" for number in range(5000)),
    ],
    ids=[
        "huge",
        "negative",
        "no number",
        "two lengths",
        "two ways",
        "a long header",
        "many headers",
    ],
)
def test_an_odd_head_costs_its_sender_only(address: str, head: str) -> None:
    with connected(address) as odd:
        try:
            odd.sendall(f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(odd)
            answer.begin()
            assert 400 <= answer.status < 500, answer.status
        except (ConnectionError, http.client.HTTPException):
            pass  # hung up on: just as well
    assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.parametrize("deep", [100_000, 499_000])
def test_json_as_deep_as_a_body_may_be(address: str, deep: int) -> None:
    body = b'{"query": ' + b"[" * deep
    reply = httpx.post(
        f"{address}/v1/search", content=body, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].count("\n") == 0


MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e{{7*7}}\x00"


@pytest.mark.parametrize("field", ["model", "role", "content", "query", "top_k"])
def test_markup_in_any_field_is_text(address: str, field: str) -> None:
    message = {"role": "user", "content": "a"} | {field: MARKUP}
    body: dict[str, object] = {"model": "ragbot", "messages": [message]}
    body["model"] = MARKUP if field == "model" else "ragbot"
    path = "/v1/chat/completions"
    if field in ("query", "top_k"):
        path, body = "/v1/search", {"query": QUESTION, field: MARKUP}
    reply = httpx.post(f"{address}{path}", json=body)
    assert reply.status_code in (200, 400, 404)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.skipif(not LINUX, reason="the server's process is looked into by Linux's means")
def test_hundreds_who_never_finish_leave_no_thread_and_no_file(tmp_path: Path) -> None:
    with served("clerk", tmp_path) as (at, pid, _):
        assert httpx.get(f"{at}/healthz").status_code == 200
        (threads,), files = status(pid, "Threads"), open_files(pid)
        with ExitStack() as held:
            for _ in range(300):
                held.enter_context(connected(at)).sendall(HALF)
            assert httpx.get(f"{at}/healthz", timeout=20).status_code == 200
        end = time.monotonic() + 20
        while open_files(pid) > files + 5 and time.monotonic() < end:
            time.sleep(0.1)
        assert open_files(pid) <= files + 5
        assert status(pid, "Threads")[0] <= threads + 5
