from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragbot.corpus import corpus_files, load_corpus, read_document
from ragbot.errors import CorpusError
from tests.conftest import ARTICLE, SHARED, needs_shared


def folder(tmp_path: Path, **files: str | bytes) -> Path:
    root = tmp_path / "docs"
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_documents_are_in_order_of_their_names(tmp_path: Path) -> None:
    corpus = load_corpus(folder(tmp_path, b_DOT_txt="乙。", a_DOT_txt="甲。", sub__c_DOT_md="丙。"))
    assert [document.name for document in corpus.documents] == ["a.txt", "b.txt", "sub/c.md"]


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    root = folder(tmp_path, a_DOT_txt="甲。", bad_DOT_pdf=b"nothing", x_DOT_exe=b"MZ", e_DOT_txt="")
    corpus = load_corpus(root)
    assert [document.name for document in corpus.documents] == ["a.txt"]
    assert [piece.text for piece in corpus.skipped] == ["bad.pdf", "e.txt", "x.exe"]
    assert all(piece.reason for piece in corpus.skipped)


def test_hidden_files_and_sidecars_are_no_documents(tmp_path: Path) -> None:
    root = folder(
        tmp_path, a_DOT_txt="甲。", _DOT_hidden_DOT_txt="乙。", _DOT_git__c_DOT_txt="丙。"
    )
    (root / "a.meta.json").write_text(json.dumps({"title": "題目"}), encoding="utf-8")
    corpus = load_corpus(root)
    assert [(d.name, d.title) for d in corpus.documents] == [("a.txt", "題目")]
    assert corpus.skipped == ()


def test_a_link_does_not_lead_out_of_the_corpus(tmp_path: Path) -> None:
    root = folder(tmp_path, a_DOT_txt="甲。")
    (tmp_path / "secret.txt").write_text("秘密。", encoding="utf-8")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert [name for name, _ in corpus_files(root)] == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", None, "There is no corpus at"),
        ("empty.txt", b"", "has no text"),
        ("blank.txt", b" \n\t\n", "has no text"),
        ("binary.txt", b"\x00\xff" * 99, "not a text file"),
        ("picture.png", b"\x89PNG", "not of a known type"),
        ("void.pdf", b"", "damaged PDF"),
    ],
)
def test_a_single_bad_file_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=said) as caught:
        load_corpus(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no document"):
        load_corpus(tmp_path)


def test_a_malformed_sidecar_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, a_DOT_txt="甲。")
    (root / "a.meta.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.meta\.json"):
        load_corpus(root / "a.txt")


def test_paragraphs_are_slices_with_numbers_and_headings(tmp_path: Path) -> None:
    root = folder(tmp_path, a_DOT_md="# 題\n\n甲。\n\n## 節\n\n乙。\n\n# 新題\n\n丙。")
    document = load_corpus(root).documents[0]
    shown = [(p.number, document.text[p.start : p.end], p.headings) for p in document.paragraphs]
    assert shown == [(1, "甲。", ("題",)), (2, "乙。", ("題", "節")), (3, "丙。", ("新題",))]
    assert "## 節" in document.text


def test_our_own_article_is_kept_whole() -> None:
    document = read_document(ARTICLE, ARTICLE.name)
    assert [p.number for p in document.paragraphs] == list(range(1, 39))
    assert document.left_out == ()
    assert document.title.startswith("百模湧入醫院之後")


@needs_shared
def test_the_original_page_loses_its_litter_and_nothing_else() -> None:
    path = next((SHARED / "original").glob("*.txt"))
    document = read_document(path, path.name)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [document.text[p.start : p.end] for p in document.paragraphs] == [
        line.strip() for line in lines[:39]
    ]
    assert [p.number for p in document.paragraphs] == list(range(1, 40))
    assert {piece.text for piece in document.left_out} >= {"+關注", "發布評論請先 登錄", "評論"}
    kept_all = read_document(path, path.name, keep_all=True)
    assert kept_all.left_out == () and len(kept_all.paragraphs) > 60


@needs_shared
@pytest.mark.parametrize("name", ["xquad_zh", "xquad_en", "drcd_dev"])
def test_a_corpus_of_a_paragraph_a_line_keeps_every_line(name: str) -> None:
    path = SHARED / "bench" / f"{name}.corpus.txt"
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    document = read_document(path, path.name)
    assert [p.number for p in document.paragraphs] == list(range(1, len(lines) + 1))


def test_a_long_text_loads_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("這是一段普通的文字，用來測試很長的文件。\n" * 200_000, encoding="utf-8")
    assert len(load_corpus(path).documents[0].paragraphs) == 200_000
