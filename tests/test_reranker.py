"""With a cross-encoder of a few dimensions and random weights, so that the real code loads it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragbot.config import load_config
from ragbot.errors import ModelError
from ragbot.index import Index
from ragbot.reranker import open_reranker
from ragbot.retriever import Retriever
from ragbot.types import Chunk, Hit
from ragbot.workspace import default_reranker
from tests.fakes import FakeEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *"蘋果香蕉梨"]
QUESTION = "a b"
TEXTS = ["c d e", "梨", "a b", "h h h h", "b a", "蘋 果", "f " * 40]


def make(folder: Path, *, outputs: int = 1, head: bool = True) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(7)
    shape = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
        initializer_range=1.0,
        num_labels=outputs,
    )
    (BertForSequenceClassification if head else BertModel)(shape).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tiny"))


def hits_of(texts: Sequence[str], headings: tuple[str, ...] = ()) -> list[Hit]:
    return [
        Hit(rank, 1 - rank / 100, Chunk("a.txt", rank, 0, len(text), text, headings))
        for rank, text in enumerate(texts, start=1)
    ]


def scored(folder: Path, passages: Sequence[str]) -> list[float]:
    """Each pair read by itself, without sentence-transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            float(
                model(
                    **tokenizer(QUESTION, text, truncation=True, max_length=32, return_tensors="pt")
                ).logits
            )
            for text in passages
        ]


@pytest.mark.parametrize("headings", [(), ("b b", "c")])
def test_hits_come_as_the_model_scores_them(tiny: Path, headings: tuple[str, ...]) -> None:
    hits = hits_of(TEXTS, headings)
    ordered = open_reranker(str(tiny), device="cpu")(QUESTION, hits)
    scores = scored(tiny, [hit.chunk.passage for hit in hits])
    best = sorted(range(len(TEXTS)), key=lambda place: -scores[place])
    assert best != list(range(len(TEXTS))), "a test of order needs another order"
    assert [hit.text for hit in ordered] == [TEXTS[place] for place in best]
    assert [hit.rank for hit in ordered] == list(range(1, len(TEXTS) + 1))
    kept = {hit.text: hit.score for hit in hits}
    assert all(hit.score == kept[hit.text] for hit in ordered), "the retriever's scale stays"


def test_equal_scores_keep_their_order(tiny: Path) -> None:
    ordered = open_reranker(str(tiny), device="cpu")(QUESTION, hits_of(["a c"] * 20))
    assert [hit.paragraph for hit in ordered] == list(range(1, 21))


def test_fifty_are_read_and_the_rest_stays(tiny: Path) -> None:
    texts = ["a", *["h h"] * 49, *["b"] * 3]
    ordered = open_reranker(str(tiny), device="cpu")(QUESTION, hits_of(texts))
    assert sorted(hit.paragraph for hit in ordered[:50]) == list(range(1, 51))
    assert [(hit.rank, hit.paragraph) for hit in ordered[50:]] == [(51, 51), (52, 52), (53, 53)]


def test_nothing_and_what_is_too_long_are_no_trouble(tiny: Path) -> None:
    reranker = open_reranker(str(tiny), device="cpu")
    assert list(reranker(QUESTION, [])) == []
    assert [hit.rank for hit in reranker("a " * 500, hits_of(["", "b " * 500]))] == [1, 2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"config.json": None}, "cannot be loaded"),
        ({"config.json": "{"}, "cannot be loaded"),
        ({"config.json": "[]"}, "cannot be loaded"),
        ({"config.json": '{"model_type": "bert", "hidden_size": "x"}'}, "cannot be loaded"),
        ({"model.safetensors": None}, "cannot be loaded"),
        ({"model.safetensors": "junk"}, "cannot be loaded"),
        ({"vocab.txt": None}, "lacks its tokenizer"),
    ],
)
def test_a_damaged_folder_is_told(
    tiny: Path, tmp_path: Path, damage: dict[str, str | None], said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for name, content in damage.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content, encoding="utf-8")
    assert said in told(folder)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"outputs": 2}, "has 2 outputs"),
        ({"head": False}, "is no cross-encoder but BertModel"),
    ],
)
def test_another_kind_of_model_is_told(tmp_path: Path, made: dict[str, Any], said: str) -> None:
    assert said in told(make(tmp_path, **made))


def told(folder: Path) -> str:
    """What is said of a model that cannot be used."""
    with pytest.raises(ModelError) as caught:
        open_reranker(str(folder), device="cpu")
    said = str(caught.value)
    assert said.startswith(f"The reranker {str(folder)!r} ") and "\n" not in said
    assert said.endswith(
        "name a folder or a hub id of a cross-encoder with one output, or set no reranker."
    )
    return said


def test_one_saved_by_sentence_transformers(tiny: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(tiny), device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").exists()
    hits = hits_of(TEXTS)
    ordered = [
        open_reranker(str(path), device="cpu")(QUESTION, hits)
        for path in (tiny, tmp_path / "saved")
    ]
    assert ordered[0] == ordered[1]


def test_without_a_hub_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"'nobody/nothing' cannot be loaded.*set no reranker"):
        open_reranker("nobody/nothing")
    assert time.monotonic() - began < 20


# --- as the settings name it -----------------------------------------------------------------


def test_no_reranker_is_loaded_unless_one_is_named() -> None:
    assert default_reranker(load_config()) is None
    assert default_reranker(load_config({"reranker": ""})) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nowhere", "no such file or folder"),
        ("word", "no file and no hub id"),
        ("packaged:e5-small", "no file and no hub id"),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"The reranker {name!r} .*{said}.*folder or a hub id"):
        default_reranker(load_config({"reranker": name}))


def test_it_orders_what_the_retriever_finds(
    tiny: Path,
    make_index: Callable[..., Index],
    encoder: FakeEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGBOT_RERANKER", str(tiny))
    index = make_index("a b。", "c d e。", "h h。", "蘋 果。")
    usual = Retriever(index, encoder).search(QUESTION, limit=4)
    found = Retriever(index, encoder, rerank=default_reranker(load_config())).search(
        QUESTION, limit=2
    )
    scores = scored(tiny, [hit.chunk.passage for hit in usual])
    best = sorted(range(4), key=lambda place: -scores[place])[:2]
    assert best != [0, 1]
    assert [(hit.rank, hit.text) for hit in found] == [
        (rank, usual[place].text) for rank, place in enumerate(best, start=1)
    ]
