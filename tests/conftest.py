"""Shared fixtures. No test touches the user's own cache, except those marked `model`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragbot.bot import RagBot
from ragbot.chunking import chunk
from ragbot.corpus import load_corpus
from ragbot.faiss_index import build_index
from ragbot.index import Index
from ragbot.retriever import Retriever
from tests.fakes import FakeEncoder, FakeEngine, hasty

SHARED = Path(__file__).parents[2] / "shared"
TORTURE = Path(__file__).parent / "torture"
ARTICLE = Path(__file__).parents[1] / "corpus" / "medical_llm_article.txt"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared question sets are not beside the repository"
)


@pytest.hookimpl(tryfirst=True)  # before marks are chosen from
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests are left out unless `-m` asks for them."""
    for item in items:
        if TORTURE in item.path.parents:
            item.add_marker(pytest.mark.apart)
    if "torture" not in str(config.getoption("-m")):
        left_out = [item for item in items if item.get_closest_marker("torture")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("torture")]


@pytest.fixture(autouse=True)
def _clean_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """No setting of the developer's own machine reaches a test, and no test's folder the repo."""
    real = os.environ.get("RAGBOT_CACHE")
    for name in [name for name in os.environ if name.upper().startswith("RAGBOT_")]:
        monkeypatch.delenv(name)
    if request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("RAGBOT_CACHE", str(tmp_path / "cache"))
    elif real:
        monkeypatch.setenv("RAGBOT_CACHE", real)
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def make_index(tmp_path: Path, encoder: FakeEncoder) -> Callable[..., Index]:
    """Index some texts, each a document's content, with the fake encoder."""

    def make(*texts: str) -> Index:
        folder = tmp_path / "texts"
        folder.mkdir(exist_ok=True)
        for number, text in enumerate(texts, start=1):
            (folder / f"doc{number}.txt").write_text(text, encoding="utf-8")
        corpus = load_corpus(folder)
        chunks = [
            piece
            for document in corpus.documents
            for piece in chunk(document, limit=200, count=encoder.count_tokens)
        ]
        return build_index(tmp_path / "made", corpus.documents, chunks, encoder)

    return make


@pytest.fixture(scope="session")
def hurried_milvus() -> Iterator[None]:
    """Milvus's client looks often whether an index is made: it waits five times for each of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pymilvus.client.grpc_handler.time", hasty())
        yield


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the generator says that it found counts as found, however signals are weighed."""
    monkeypatch.setattr("ragbot.inquiry.probability", lambda signals: 0.9)
    monkeypatch.setattr("ragbot.inquiry.threshold", lambda: 0.5)


@pytest.fixture
def make_bot(
    make_index: Callable[..., Index], encoder: FakeEncoder, engine: FakeEngine, trusting: None
) -> Callable[..., RagBot]:
    """A bot over some texts that answers with what is enqueued in `engine`, and trusts it."""

    def make(*texts: str, top_k: int = 3) -> RagBot:
        return RagBot(Retriever(make_index(*texts), encoder), lambda: engine, top_k=top_k)

    return make
