"""What every engine of an index promises, whichever keeps it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragbot.address import Milvus
from ragbot.errors import StoreError
from ragbot.index import Index
from ragbot.milvus.client import connect
from ragbot.milvus.generation import opened
from ragbot.retriever import Retriever
from ragbot.stores import FaissStore, IndexStore, MilvusStore
from ragbot.types import Chunk, Document, Paragraph
from tests.fakes import FakeEncoder

TEXTS = (
    "華為組建醫療衛生軍團。百度沒有這樣做。",
    "百度收購了一家公司。",
    "今天天氣晴朗。",
    "今天天氣晴朗。",
    "Huawei founded a medical corps in 2025.",
    "！？",
)
pytestmark = pytest.mark.usefixtures("hurried_milvus")
ENGINES = ("faiss", "milvus")
ROOT = Path(__file__).parents[1]
_numbers = itertools.count()


def content(*texts: str) -> tuple[list[Document], list[Chunk]]:
    """A document of one paragraph for each text, named after it, and its chunk."""
    documents, chunks = [], []
    for number, text in enumerate(texts):
        name = f"{number}-{text[:3]}.txt"
        documents.append(Document(name, text[:2], text, (Paragraph(1, 0, len(text), ("題",)),)))
        chunks.append(Chunk(name, 1, 0, len(text), text, ("題",)))
    return documents, chunks


def make_store(engine: str, folder: Path, lite: Path) -> IndexStore:
    if engine == "faiss":
        return FaissStore(folder / "faiss")
    return MilvusStore(Milvus(f"index{next(_numbers)}", lite=lite), folder / "desk")


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("milvus") / "lite.db"


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path, lite: Path) -> IndexStore:
    return make_store(request.param, tmp_path, lite)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, lite: Path) -> dict[str, Index]:
    """The same texts in every engine."""
    folder = tmp_path_factory.mktemp("built")
    return {
        engine: make_store(engine, folder, lite).build(*content(*TEXTS), FakeEncoder())
        for engine in ENGINES
    }


@pytest.fixture(params=ENGINES)
def index(request: pytest.FixtureRequest, indexes: dict[str, Index]) -> Index:
    return indexes[request.param]


# --- searching -------------------------------------------------------------------------------


def test_the_best_comes_first(index: Index, encoder: FakeEncoder) -> None:
    hits = Retriever(index, encoder).search("華為的醫療衛生軍團", limit=3)
    assert hits[0].text == TEXTS[0]
    assert len(hits) == 3 and hits[0].score > hits[1].score


def test_equal_scores_keep_the_order_of_the_corpus(index: Index, encoder: FakeEncoder) -> None:
    first, second = Retriever(index, encoder).search("天氣", limit=2)
    assert first.text == second.text and first.score == second.score
    assert first.doc < second.doc


@pytest.mark.parametrize("query", ["zebra", "", "？！"])
def test_without_a_known_word_no_share_is_held(
    index: Index, encoder: FakeEncoder, query: str
) -> None:
    found = index.search(encoder.queries([query])[0], query, limit=2)
    assert len(found) == 4 and not any(candidate.lexical for candidate in found)


def test_candidates_are_in_order_and_each_has_its_chunk(index: Index, encoder: FakeEncoder) -> None:
    found = index.search(encoder.queries(["百度"])[0], "百度", limit=50)
    assert [candidate.id for candidate in found] == list(range(len(TEXTS)))
    assert [candidate.chunk for candidate in found] == list(index.chunks)
    assert [candidate.lexical > 0 for candidate in found] == [True, True, *[False] * 4]


def test_engines_give_the_same_scores(indexes: dict[str, Index], encoder: FakeEncoder) -> None:
    for query in (*TEXTS, "華為", "百度公司 zebra", "天氣 天氣 corps", ""):
        vector = encoder.queries([query])[0]
        one, other = (indexes[engine].search(vector, query, limit=2) for engine in ENGINES)
        assert [found.chunk for found in one] == [found.chunk for found in other]
        for a, b in zip(one, other, strict=True):
            assert a.id == b.id
            assert (a.passage, a.sentence) == pytest.approx((b.passage, b.sentence), abs=1e-6)
            assert a.lexical == pytest.approx(b.lexical, abs=1e-6)


# --- some documents --------------------------------------------------------------------------

ODD = ("a.txt", 'von "B" \\ it\'s {c}.txt', "報告 夾/第 1 章%.md", "[d]*.txt", "e.txt")


def several(names: Sequence[str] = ODD) -> tuple[list[Document], list[Chunk]]:
    """Documents of two chunks each, all of them about apples, none like another."""
    documents, chunks = [], []
    for number, name in enumerate(names):
        texts = [f"蘋果第{number}箱有{number + 3}個，{name}。梨沒有。", "蘋果" * (number + 1)]
        ends = (0, len(texts[0]), len("".join(texts)))
        paragraphs = tuple(Paragraph(n + 1, ends[n], ends[n + 1]) for n in range(2))
        documents.append(Document(name, name, "".join(texts), paragraphs))
        chunks += [Chunk(name, n + 1, ends[n], ends[n + 1], texts[n]) for n in range(2)]
    return documents, chunks


@pytest.fixture(scope="module", params=ENGINES)
def orchard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lite: Path
) -> Index:
    folder = tmp_path_factory.mktemp("orchard")
    return make_store(request.param, folder, lite).build(*several(), FakeEncoder())


@pytest.mark.parametrize("names", [(), *((name,) for name in ODD), ODD[1:4], ODD, ("no such",)])
def test_within_documents_is_found_what_is_found_of_them_in_all(
    orchard: Index, encoder: FakeEncoder, names: tuple[str, ...]
) -> None:
    for query in ("蘋果", "蘋果第3箱", "梨 沒有 zebra", "？"):
        vector = encoder.queries([query])[0]
        everything = orchard.search(vector, query, limit=1000)
        wanted = [found for found in everything if found.chunk.doc in names]
        assert orchard.within(names).search(vector, query, limit=1000) == wanted


def test_within_documents_as_much_is_found_as_if_there_were_no_others(
    orchard: Index, encoder: FakeEncoder
) -> None:
    query = ODD[0]  # nearest to a document that is left out
    part = orchard.within(ODD[1:])
    found = part.search(encoder.queries([query])[0], query, limit=1)
    assert len(found) >= 2 and {one.chunk.doc for one in found} <= set(ODD[1:])
    hits = Retriever(part, encoder).search(query, limit=100)
    assert [hit.rank for hit in hits] == list(range(1, 9))


def test_within_documents_nothing_of_others_is_shown(orchard: Index) -> None:
    documents, chunks = several()
    part = orchard.within([ODD[3], ODD[1]])
    mine = [*chunks[2:4], *chunks[6:8]]
    assert dict(part.documents) == {one.name: one for one in (documents[1], documents[3])}
    assert ODD[0] not in part.documents and list(part.chunks) == mine
    assert part.chunks[-1] == mine[-1] and part.chunks[::-2] == (mine[3], mine[1])
    assert list(part.around(chunks[3], 1)) == mine[:3] and list(part.around(mine[0], 9)) == mine
    assert np.array_equal(part.sentences_of(mine[0]), orchard.sentences_of(mine[0]))
    for ask in (lambda chunk: part.around(chunk, 1), part.sentences_of):
        with pytest.raises(KeyError):
            ask(chunks[0])
    assert part.manifest == orchard.manifest and part.current() is part
    assert list(part.within(ODD[:2]).documents) == [ODD[1]]
    assert not orchard.within([]).languages and not orchard.within([]).documents


def test_within_documents_are_their_languages(index: Index) -> None:
    names = list(index.documents)
    assert index.within(names[4:5]).languages == {"en"}
    assert index.within(names[:2]).languages == {"zh-Hant"}


def test_a_new_index_is_seen_through_the_same_documents(
    store: IndexStore, encoder: FakeEncoder
) -> None:
    part = store.build(*several(), encoder).within(ODD[:2])
    store.build(*several(ODD[1:]), encoder)
    assert set(part.current().documents) <= set(ODD[:2])
    assert list(store.open(encoder).within(ODD[:2]).documents) == [ODD[1]]


# --- reading ---------------------------------------------------------------------------------


def test_chunks_and_documents_are_what_they_were(index: Index) -> None:
    documents, chunks = content(*TEXTS)
    assert list(index.chunks) == chunks and len(index.chunks) == len(chunks)
    assert index.chunks[1:5:2] == tuple(chunks[1:5:2]) and index.chunks[-1] == chunks[-1]
    assert index.chunks[::-1] == tuple(chunks[::-1]) and index.chunks[9:] == ()
    with pytest.raises(IndexError):
        index.chunks[len(chunks)]
    assert list(index.documents.values()) == documents
    assert "nowhere" not in index.documents and len(index.documents) == len(documents)
    with pytest.raises(KeyError):
        index.documents["nowhere"]


def test_a_long_document_is_kept_whole(store: IndexStore, encoder: FakeEncoder) -> None:
    text = "第一句。" * 9000 + "𠮷" * 9000
    document = Document("a.txt", "題", text, (Paragraph(1, 0, 4),))
    index = store.build([document], [Chunk("a.txt", 1, 0, 4, text[:4])], encoder)
    assert index.documents == {"a.txt": document}


def test_a_chunk_has_neighbours(index: Index) -> None:
    chunks = content(*TEXTS)[1]
    assert list(index.around(chunks[3], 1)) == chunks[2:5]
    assert list(index.around(chunks[0], 2)) == chunks[:3]
    with pytest.raises(KeyError):
        index.around(replace(chunks[0], doc="elsewhere"), 1)


def test_sentences_have_vectors(index: Index, encoder: FakeEncoder) -> None:
    chunks = content(*TEXTS)[1]
    sentences = encoder.passages(["華為組建醫療衛生軍團。", "百度沒有這樣做。"])
    assert np.allclose(index.sentences_of(chunks[0]), sentences, atol=0.005)
    whole = encoder.passages([chunks[1].passage])
    assert np.allclose(index.sentences_of(chunks[1]), whole, atol=0.005)


def test_languages(index: Index) -> None:
    assert index.languages == {"zh-Hans", "en"}  # marks alone are of no script


def test_what_an_index_is_can_be_told_without_opening_it(
    store: IndexStore, encoder: FakeEncoder
) -> None:
    assert not store.exists() and not store.source()
    with pytest.raises(StoreError, match=r"no index in .*ragbot index"):
        store.open(encoder)
    made = store.build(*content("甲。"), encoder)
    assert store.exists() and store.manifest() == made.manifest == store.open(encoder).manifest
    assert not store.outdated(encoder) and store.outdated(FakeEncoder("fake-2"))
    with pytest.raises(StoreError, match=r"another encoder \(fake\).*ragbot index"):
        store.open(FakeEncoder("fake-2"))
    store.note_source({"corpus": "/here", "files": "1"})
    assert store.source() == {"corpus": "/here", "files": "1"}


# --- writing ---------------------------------------------------------------------------------


def test_unchanged_text_is_not_encoded_again(store: IndexStore, encoder: FakeEncoder) -> None:
    store.build(*content(*TEXTS), encoder)
    before = len(encoder.encoded)
    index = store.build(*content("新的一段。", "百度沒有這樣做。", *TEXTS[1:]), encoder)
    assert sorted(encoder.encoded[before:]) == ["題\n新的一段。", "題\n百度沒有這樣做。"]
    assert len(index.chunks) == 7


def test_what_vanished_is_gone(store: IndexStore, encoder: FakeEncoder) -> None:
    store.build(*content(*TEXTS), encoder)
    documents, chunks = content(*TEXTS)
    index = store.build(documents[1:], chunks[1:], encoder)
    assert list(index.chunks) == chunks[1:] == list(store.open(encoder).chunks)
    assert documents[0].name not in index.documents
    assert all(
        hit.text != TEXTS[0] for hit in Retriever(index, encoder).search("華為軍團", limit=9)
    )
    assert index.search(encoder.queries(["衛生"])[0], "衛生", limit=9)[0].lexical == 0
    with pytest.raises(KeyError):
        index.around(chunks[0], 1)
    assert leftovers(store) == 1


def leftovers(store: IndexStore) -> int:
    """How many generations there are, the one that is read included."""
    if isinstance(store, FaissStore):
        return len(list(store.folder.glob("generation-*")))
    assert isinstance(store, MilvusStore)
    names = connect(store.place).list_collections()
    return len([name for name in names if name.startswith(f"{store.place.name}_")]) // 2


def test_a_reader_sees_the_old_index_or_the_new_one(
    store: IndexStore, encoder: FakeEncoder
) -> None:
    old = store.build(*content(*TEXTS), encoder)
    before = list(old.chunks)
    assert old.current() is old
    new = store.build(*content("全新。"), encoder)
    assert list(old.current().chunks) in (before, list(new.chunks))
    assert [chunk.text for chunk in store.open(encoder).chunks] == ["全新。"]


@pytest.mark.parametrize("texts", [(), ("！？",)])
def test_an_index_of_nothing_finds_nothing(
    store: IndexStore, encoder: FakeEncoder, texts: tuple[str, ...]
) -> None:
    index = store.build(*content(*texts), encoder)
    assert len(index.search(encoder.queries(["甲"])[0], "甲", limit=3)) == len(texts)


def test_a_damaged_index_is_refused_and_the_remedy_helps(
    store: IndexStore, encoder: FakeEncoder
) -> None:
    store.build(*content(*TEXTS), encoder)
    if isinstance(store, FaissStore):
        path = next(store.folder.glob("generation-*")) / "rows.npy"
        path.write_bytes(path.read_bytes()[:-3])
    else:
        assert isinstance(store, MilvusStore)
        generation = opened(store.place)
        generation.client.delete(generation.name, filter="number == 2")
    with pytest.raises(StoreError, match=r"damaged.*ragbot index"):
        store.open(encoder)
    assert list(store.build(*content(*TEXTS), encoder).chunks) == content(*TEXTS)[1]


WRITER = """
import sys, time
from pathlib import Path
from pymilvus.client import grpc_handler
from tests.fakes import FakeEncoder, hasty
from tests.test_index_contract import TEXTS, content, make_store
import ragbot.vectors

class Stuck(FakeEncoder):
    def passages(self, texts, progress=None):
        if "stuck" in texts[0]:
            print("stuck", flush=True)
            time.sleep(300)
        return super().passages(texts, progress)

ragbot.vectors._SLAB, grpc_handler.time = 1, hasty()
folder = Path(sys.argv[2])
store = make_store(sys.argv[1], folder, folder / "killed.db")
store.build(*content(*TEXTS), Stuck())
store.build(*content("很長的新的一段，先寫。", "stuck"), Stuck())
"""


@pytest.mark.apart
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_writer_leaves_the_old_index_and_what_it_encoded(
    engine: str, tmp_path: Path, encoder: FakeEncoder
) -> None:
    command = [sys.executable, "-c", WRITER, engine, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGKILL)
    store: IndexStore = FaissStore(tmp_path / "faiss")
    if engine == "milvus":
        store = MilvusStore(Milvus("index0", lite=tmp_path / "killed.db"), tmp_path / "desk")
    assert list(store.open(encoder).chunks) == content(*TEXTS)[1]
    index = store.build(*content("很長的新的一段，先寫。", "stuck"), encoder)
    assert encoder.encoded == ["題\nstuck"]
    assert [chunk.text for chunk in index.chunks] == ["很長的新的一段，先寫。", "stuck"]
    assert leftovers(store) == 1


def test_a_program_that_wrote_to_milvus_lite_ends_without_a_word(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.fakes import FakeEncoder\n"
        "from tests.test_index_contract import TEXTS, content, make_store\n"
        "folder = Path(sys.argv[1])\n"
        "make_store('milvus', folder, folder / 'x.db').build(*content(*TEXTS), FakeEncoder())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
