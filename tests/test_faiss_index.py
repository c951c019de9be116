from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragbot.dense import Dense
from ragbot.errors import StoreError
from ragbot.faiss_index import build_index, open_index, outdated, read_manifest
from ragbot.index import Index
from ragbot.lexical import Lexical
from ragbot.types import Chunk, Document, Paragraph
from ragbot.vectors import floats, short
from tests.fakes import FakeEncoder

MakeIndex = Callable[..., Index]


def made(tmp_path: Path) -> Path:
    return tmp_path / "made"


def test_an_index_opens_as_it_was_built(
    make_index: MakeIndex, tmp_path: Path, encoder: FakeEncoder
) -> None:
    built = make_index("華為組建軍團。股市飆升。\n第二段。", "Another document.")
    opened = open_index(made(tmp_path), encoder.fingerprint)
    assert list(opened.chunks) == list(built.chunks)
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
        index.sentences_of(two), encoder.passages(["第一句話。", "第二句話。"]), atol=2e-3
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
    kept = opened.sentences_of(opened.chunks[0])
    assert kept == pytest.approx(encoder.queries(["甲段。"]), abs=2e-3)


@pytest.mark.parametrize(
    "file",
    [
        "passages.faiss",
        "rows.npy",
        "starts.npy",
        "keys.npy",
        "chunks.jsonl",
        "chunks.npy",
        "documents.jsonl",
        "names.json",
        "bm25/vocab.index.json",
    ],
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


def test_what_an_older_ragbot_made_is_told_from_what_another_encoder_did(
    make_index: MakeIndex, encoder: FakeEncoder, tmp_path: Path
) -> None:
    make_index("甲。")
    assert not outdated(made(tmp_path), encoder)
    assert outdated(made(tmp_path), FakeEncoder("fake-2"))
    other = FakeEncoder("fake-2")
    other.name = "another"
    assert not outdated(made(tmp_path), other)
    manifest = made(tmp_path) / "manifest.json"
    fields = json.loads(manifest.read_text(encoding="utf-8"))
    for number, older in ((1, True), (99, False)):
        manifest.write_text(json.dumps(fields | {"format": number}), encoding="utf-8")
        assert outdated(made(tmp_path), encoder) is older


def test_a_chunk_is_found_again_among_those_of_the_same_words(
    encoder: FakeEncoder, tmp_path: Path
) -> None:
    chunks = _chunks("甲。", "乙。", "甲。", "丙。")
    index = build_index(tmp_path / "i", [], chunks, encoder)
    assert list(index.around(index.chunks[2], 1)) == chunks[1:4]
    with pytest.raises(KeyError):
        index.around(replace(chunks[0], doc="elsewhere"), 1)


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
    assert list(opened.chunks) == chunks
    assert "a.md" in opened.documents and "b.md" not in opened.documents


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


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_the_best_are_those_of_the_highest_shares(limit: int) -> None:
    texts = ["華為軍團", "百度公司", "華為公司", "軍團", "華為軍團", "天氣"]
    lexical = Lexical.build(texts)
    places, shares = lexical.best("華為軍團", limit)
    order = [int(n) for n in np.argsort(-shares, kind="stable") if shares[n] > 0]
    assert places.tolist() == sorted(order[:limit])
    assert np.array_equal(shares, lexical.scores("華為軍團"))


def test_scores_are_those_of_the_library() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.zipf(1.5, 30) if n < 200) for _ in range(300)]
    lexical = Lexical.build(texts)
    asked = ["w1", "w3", "w3", "w150"]
    whole = lexical._bm25.get_scores(asked)  # type: ignore[union-attr]
    shares = lexical.scores(" ".join(asked))
    assert np.corrcoef(whole, shares)[0, 1] > 0.999999
    assert np.array_equal(whole > 0, shares > 0)


# --- dense -----------------------------------------------------------------------------------


def unit(count: int, width: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_asking_for_more_than_there_is_gives_what_there_is() -> None:
    vectors = np.eye(3, dtype=np.float32)
    dense = Dense.build(short(vectors), np.array([0, 1, 3]))
    assert dense.nearest(vectors[2], 50).tolist() == [0, 1]
    whole, sentence = dense.cosines(np.array([0, 1]), vectors[2])
    assert whole.tolist() == [0.0, 0.0] and sentence.tolist() == [0.0, 1.0]


def test_up_to_a_number_the_nearest_are_exactly_those() -> None:
    vectors = floats(short(unit(3000, 32)))
    dense = Dense.build(short(vectors), np.arange(3001))
    for vector in vectors[:20]:
        exact = np.argsort(-(vectors @ vector), kind="stable")[:40]
        assert set(dense.nearest(vector, 40).tolist()) == set(exact.tolist())


def test_cosines_are_of_the_whole_and_of_the_best_sentence() -> None:
    vectors = floats(short(unit(40, 32)))
    starts = np.array([0, 4, 5, 20, 40])
    dense = Dense.build(short(vectors), starts)
    for chosen in ([0, 1, 2, 3], [1], [0, 3]):
        whole, sentence = dense.cosines(np.array(chosen), vectors[7])
        for at, chunk in enumerate(chosen):
            rows = vectors[starts[chunk] : starts[chunk + 1]] @ vectors[7]
            assert whole[at] == pytest.approx(rows[0], abs=1e-5)
            assert sentence[at] == pytest.approx(
                rows[1:].max(initial=-1) if len(rows) > 1 else rows[0], abs=1e-5
            )


def test_a_large_index_is_approximate_and_still_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ragbot.dense.EXACT_CHUNKS", 100)
    vectors = unit(2000, 64)
    built = Dense.build(short(vectors), np.arange(2001))
    np.save(tmp_path / "rows.npy", built.rows)
    built.save(tmp_path)
    dense = Dense.load(tmp_path)
    for n, vector in enumerate(vectors[:100]):
        found = dense.nearest(vector, 20)
        assert n in found and len(found) == 20
        assert np.array_equal(found, built.nearest(vector, 20))
        assert np.array_equal(found, dense.nearest(vector, 20))
    assert np.allclose(dense.rows_of(7), vectors[7:8], atol=1e-3)


@pytest.mark.parametrize("exact", [3000, 100])
def test_among_some_the_nearest_are_exactly_those(
    monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    monkeypatch.setattr("ragbot.dense.EXACT_CHUNKS", exact)
    monkeypatch.setattr("ragbot.dense._BLOCK", 256)
    vectors = floats(short(unit(2000, 32)))
    dense = Dense.build(short(vectors), np.arange(2001))
    among = np.arange(1, 2000, 3)
    for vector in vectors[:20]:
        best = among[np.argsort(-(vectors[among] @ vector), kind="stable")[:40]]
        assert set(dense.nearest(vector, 40, among).tolist()) == set(best.tolist())
    assert dense.nearest(vectors[0], 1000, among).tolist() == among.tolist()
    assert dense.nearest(vectors[0], 40, among[:0]).tolist() == []
