from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragbot.dense import Dense
from ragbot.errors import StoreError
from ragbot.index import Index, build_index, open_index, read_manifest
from ragbot.lexical import Lexical
from ragbot.types import Chunk, Document, Paragraph
from tests.fakes import FakeEncoder

MakeIndex = Callable[..., Index]


def made(tmp_path: Path) -> Path:
    return tmp_path / "made"


def test_an_index_opens_as_it_was_built(
    make_index: MakeIndex, tmp_path: Path, encoder: FakeEncoder
) -> None:
    built = make_index("華為組建軍團。股市飆升。\n第二段。", "Another document.")
    opened = open_index(made(tmp_path), encoder.fingerprint)
    assert opened.chunks == built.chunks
    assert opened.documents == built.documents
    assert opened.manifest == built.manifest
    vector = encoder.queries(["軍團"])[0]
    found = opened.search(vector, "軍團", limit=9)
    assert found == built.search(vector, "軍團", limit=9)
    assert len(found) == 3


def test_a_chunks_sentences_have_vectors_of_their_own(
    make_index: MakeIndex, encoder: FakeEncoder
) -> None:
    index = make_index("第一句話。第二句話。\n只有一句。")
    two, one = index.chunks
    assert np.allclose(
        index.sentences_of(two), encoder.passages(["第一句話。", "第二句話。"]), atol=1e-6
    )
    assert index.sentences_of(one).shape == (1, encoder.dimension)


def test_only_new_text_is_encoded_and_what_vanished_is_dropped(
    make_index: MakeIndex, encoder: FakeEncoder, tmp_path: Path
) -> None:
    make_index("甲段。", "乙段。")
    encoder.encoded.clear()
    index = make_index("甲段。", "丙段。")
    assert encoder.encoded == ["丙段。"]
    assert [chunk.text for chunk in index.chunks] == ["甲段。", "丙段。"]
    opened = open_index(made(tmp_path), encoder.fingerprint)
    assert opened.sentences_of(opened.chunks[0]) == pytest.approx(encoder.queries(["甲段。"]))


@pytest.mark.parametrize(
    "file",
    ["vectors.faiss", "starts.npy", "chunks.jsonl", "documents.jsonl", "bm25/vocab.index.json"],
)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "removed"])
def test_a_damaged_file_is_refused_with_the_remedy(
    make_index: MakeIndex, encoder: FakeEncoder, tmp_path: Path, file: str, damage: str
) -> None:
    make_index("甲段的文字。", "乙段的文字。")
    path = next(made(tmp_path).glob("generation-*")) / file
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-3], "emptied": b"", "flipped": flipped}[damage])
    with pytest.raises(StoreError, match=r"damaged.*ragbot index") as caught:
        open_index(made(tmp_path), encoder.fingerprint)
    assert "\n" not in str(caught.value)
    assert make_index("甲段的文字。").chunks  # and the remedy helps


def test_another_encoders_index_is_refused(
    make_index: MakeIndex, encoder: FakeEncoder, tmp_path: Path
) -> None:
    make_index("甲。")
    with pytest.raises(StoreError, match=r"another encoder \(fake\).*ragbot index"):
        open_index(made(tmp_path), "someone-else")


def test_a_newer_format_is_refused(make_index: MakeIndex, tmp_path: Path) -> None:
    make_index("甲。")
    manifest = made(tmp_path) / "manifest.json"
    fields = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(fields | {"format": 99}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"format 99.*update ragbot"):
        read_manifest(made(tmp_path))


def test_a_folder_that_cannot_be_written(encoder: FakeEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        build_index(tmp_path / "file" / "index", [], _chunks("甲。"), encoder)


def _chunks(*texts: str) -> list[Chunk]:
    return [Chunk("d", n, 0, len(text), text) for n, text in enumerate(texts, start=1)]


def test_documents_keep_all_they_had(encoder: FakeEncoder, tmp_path: Path) -> None:
    document = Document("a.md", "題", "# 題\n甲。", (Paragraph(1, 4, 6, ("題",)),))
    chunks = [Chunk("a.md", 1, 4, 6, "甲。", ("題",))]
    build_index(tmp_path / "i", [document], chunks, encoder)
    opened = open_index(tmp_path / "i", encoder.fingerprint)
    assert opened.documents == {"a.md": document}
    assert opened.chunks == tuple(chunks)


@pytest.mark.parametrize(
    ("texts", "languages"),
    [
        (["華為組建軍團。\n股市飆升。"], {"zh-Hant"}),
        (["华为组建军团。"], {"zh-Hans"}),
        (["Huawei founded a corps."], {"en"}),
        (["華為組建軍團。", "华为组建军团。"], {"zh-Hans"}),  # both are searched alike
        (["華為組建軍團。", "Huawei founded a corps."], {"zh-Hant", "en"}),
        (["華為組建軍團。\nHuawei founded a corps."], {"zh-Hant", "en"}),
        (["華為OpenAI組建GPT軍團。"], {"zh-Hant"}),
        (
            ["\n".join(["華為組建軍團。"] * 30) + "\nHuawei OpenAI GPT"],
            {"zh-Hant"},
        ),  # a line of names
        (["\n".join(["華為組建軍團。"] * 30), "Huawei founded a corps."], {"zh-Hant", "en"}),
    ],
)
def test_the_languages_of_the_documents(
    make_index: MakeIndex, texts: list[str], languages: set[str]
) -> None:
    assert make_index(*texts).languages == languages


def test_the_languages_of_many_documents_are_read_off_a_sample(
    make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragbot.index._SAMPLE", 5)
    index = make_index(*["華為組建軍團。"] * 20, *["Huawei founded a corps."] * 20)
    assert index.languages == {"zh-Hant", "en"}


# --- lexical ---------------------------------------------------------------------------------


def test_lexical_scores_are_shares_of_the_query() -> None:
    lexical = Lexical.build(["華為組建醫療軍團", "百度收購公司", ""])
    scores = lexical.scores("华为軍團")
    assert scores.shape == (3,) and scores.dtype == np.float32
    assert scores[0] > scores[1] == 0 == scores[2]
    assert 0 < scores[0] < 1


def test_words_that_nobody_knows_lower_the_share() -> None:
    lexical = Lexical.build(["華為組建軍團", "百度收購公司"])
    assert lexical.scores("華為 zebra")[0] < lexical.scores("華為")[0]


@pytest.mark.parametrize("query", ["", "？！", "zebra"])
def test_a_query_without_a_known_word_scores_nothing(query: str) -> None:
    assert not Lexical.build(["華為組建軍團"]).scores(query).any()


@pytest.mark.parametrize("passages", [[], ["！？"], ["", ""]])
def test_passages_without_words(passages: list[str], tmp_path: Path) -> None:
    lexical = Lexical.build(passages)
    lexical.save(tmp_path / "bm25")
    loaded = Lexical.load(tmp_path / "bm25", len(passages))
    assert loaded.scores("華為").shape == (len(passages),)


# --- dense -----------------------------------------------------------------------------------


def test_asking_for_more_than_there_is_gives_what_there_is() -> None:
    vectors = np.eye(3, dtype=np.float32)
    dense = Dense.build(vectors, np.array([0, 1, 3]))
    assert dense.nearest(vectors[2], 50) == {0, 1}
    assert dense.cosines(1, vectors[2]) == (0.0, 1.0)


def test_a_large_index_is_approximate_and_still_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragbot.dense.EXACT_ROWS", 100)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    dense = Dense.build(vectors, np.arange(2001))
    best = [int((vectors @ v).argmax()) in dense.nearest(v, 10) for v in vectors[:100]]
    assert np.mean(best) >= 0.99
    assert np.allclose(dense.rows(7), vectors[7:8])
