from __future__ import annotations

import zipfile
from pathlib import Path

import docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from ragbot.errors import CorpusError
from ragbot.readers.base import clean, decode
from ragbot.readers.html import read_html
from ragbot.readers.pdf import read_pdf
from ragbot.readers.plain import read_markdown, read_txt
from ragbot.readers.word import read_docx
from tests.conftest import ARTICLE, SHARED, needs_shared

TRADITIONAL = "華為三月對外宣告組建醫療衛生軍團，股市裡的概念股隨即飆升。"
SIMPLIFIED = "黑豹队的防守只丢了三百零八分，在联赛中排名第六，同时领先。"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "big5"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "text", [TRADITIONAL, SIMPLIFIED, "AI 與 DeepSeek：85%，多半就能發paper。"]
)
def test_chinese_in_any_encoding(text: str, encoding: str) -> None:
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        pytest.skip("this script has no such encoding")
    assert decode(data) == text


@pytest.mark.parametrize("encoding", ["gb18030", "big5hkscs", "utf-16-le", "utf-16-be"])
def test_every_line_of_the_article_in_any_encoding(encoding: str) -> None:
    lines = ARTICLE.read_text(encoding="utf-8").split("\n")
    wrong = [line for line in lines if line and decode(line[:30].encode(encoding)) != line[:30]]
    assert wrong == []


@needs_shared
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le", "utf-16-be"])
def test_every_line_of_a_simplified_corpus(encoding: str) -> None:
    text = (SHARED / "bench" / "xquad_zh.corpus.txt").read_text(encoding="utf-8-sig")
    lines = [clean(line)[:40] for line in text.split("\n") if line.strip()]
    assert [line for line in lines if decode(line.encode(encoding)) != line] == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ""),
        (b"plain ascii", "plain ascii"),
        ("caf\u00e9 cr\u00e8me br\u00fbl\u00e9e d\u00e9j\u00e0 vu".encode("cp1252"), None),
        (b"\x00\x01\x02\x03\xff\xfe\x00", None),
        (bytes(range(256)) * 4, None),
    ],
)
def test_other_bytes(data: bytes, expected: str | None) -> None:
    if expected is None:
        assert decode(data) is None or "\0" not in str(decode(data))
    else:
        assert decode(data) == expected


def test_what_no_reader_sees_is_cleaned_away() -> None:
    assert clean("a\r\nb\rc\x00d\u200be\ufeff\x1b[0m") == "a\nb\ncde[0m"


@given(st.text())
def test_cleaning_is_done_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- plain text ------------------------------------------------------------------------------


def test_a_paragraph_a_line(tmp_path: Path) -> None:
    source = read_txt(written(tmp_path, "a.txt", "一段。\n\n  二段。  \n三段"), False)
    assert [block.text for block in source.blocks] == ["一段。", "二段。", "三段"]


WRAPPED = """It was the best of times, it was the worst of
times, it was the age of wisdom, it was the
age of foolishness, it was the epoch of belief.

There were a king with a large jaw and a queen
with a plain face, on the throne of England; in
both countries it was clearer than crystal.
"""


def test_hard_wrapped_lines_make_one_paragraph(tmp_path: Path) -> None:
    source = read_txt(written(tmp_path, "a.txt", WRAPPED), False)
    assert len(source.blocks) == 2
    assert source.blocks[0].text.startswith("It was") and "\n" in source.blocks[0].text


@pytest.mark.parametrize(
    "text",
    [
        "一行一段，沒有折行。\n另一段，也是完整的。\n\n第三段。\n第四段。",
        "short\nlines\n\nof a\npoem",
        "A full sentence on a line.\nAnother one, also full.\n\nAnd one more of them.\nThe end.",
    ],
)
def test_lines_that_are_finished_are_not_taken_for_wrapped(tmp_path: Path, text: str) -> None:
    source = read_txt(written(tmp_path, "a.txt", text), False)
    assert len(source.blocks) == len([line for line in text.split("\n") if line])


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.txt is not a text file"):
        read_txt(written(tmp_path, "a.txt", b"\x7fELF\x02\x01\x01\x00\x00\xfe\xff\x00" * 50), False)


# --- Markdown --------------------------------------------------------------------------------

MARKDOWN = """---
author: me
---
# Title

Lead-in:

- one
- two

## Part

Wrapped
paragraph.

| a | b |
|---|---|
| 1 | 2 |

```
code
```
"""


def test_markdown_blocks(tmp_path: Path) -> None:
    source = read_markdown(written(tmp_path, "a.md", MARKDOWN), False)
    kinds = [(block.level, block.text.split("\n")[0]) for block in source.blocks]
    assert kinds == [
        (1, "# Title"),
        (0, "Lead-in:"),
        (0, "- one"),
        (2, "## Part"),
        (0, "Wrapped"),
        (0, "| a | b |"),
        (0, "```"),
    ]
    assert source.title == "Title"
    assert [piece.reason for piece in source.left_out] == ["front matter"]


# --- HTML ------------------------------------------------------------------------------------

PAGE = """<html><head><meta charset="{charset}"><title>頁面標題</title>
<script>var hidden = 1;</script></head><body>
<nav><a href="/">首頁</a> <a href="/about">關於</a></nav>
<article><h1>大標題</h1><p>第一段的內容夠長，足以讓人相信這是本頁的主要文字，而不是選單。</p>
<h2>小節</h2><p>第二段也有<b>粗體</b>和<a href="x">連結</a>，說明模型怎樣進入醫院的流程。</p>
<ul><li>第一項</li><li>第二項</li></ul></article>
<footer>版權所有</footer></body></html>"""


@pytest.mark.parametrize("charset", ["utf-8", "big5"])
def test_a_pages_main_content(tmp_path: Path, charset: str) -> None:
    path = written(tmp_path, "a.html", PAGE.format(charset=charset).encode(charset))
    source = read_html(path, False)
    texts = [block.text for block in source.blocks]
    assert "第二段也有粗體和連結，說明模型怎樣進入醫院的流程。" in texts
    assert [(b.level, b.title) for b in source.blocks if b.level] == [(1, "大標題"), (2, "小節")]
    assert "第一項\n第二項" in texts
    assert source.title == "頁面標題"
    assert "首頁 關於" in [piece.text for piece in source.left_out]
    assert not any("hidden" in piece.text for piece in source.left_out)


def test_all_that_is_visible_on_request(tmp_path: Path) -> None:
    source = read_html(written(tmp_path, "a.html", PAGE.format(charset="utf-8")), True)
    texts = [block.text for block in source.blocks]
    assert "首頁 關於" in texts and "版權所有" in texts
    assert not any("hidden" in text for text in texts)


def test_a_tiny_page_is_kept_whole(tmp_path: Path) -> None:
    source = read_html(written(tmp_path, "a.html", "<p>只有一句話。</p>"), False)
    assert "只有一句話。" in [block.text for block in source.blocks]


def test_a_deeply_nested_page_does_not_crash(tmp_path: Path) -> None:
    page = "<div>" * 50_000 + "深處的文字。" + "</div>" * 50_000
    try:
        read_html(written(tmp_path, "a.html", page), False)
    except CorpusError as error:
        assert "a.html" in str(error)


# --- PDF -------------------------------------------------------------------------------------


def pdf(path: Path, pages: list[list[str]], password: str = "") -> Path:
    writer = PdfWriter()
    for lines in pages:
        page = writer.add_blank_page(600, 800)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        drawn = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream.set_data(f"BT /F1 12 Tf 50 750 Td {drawn} ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password)
    writer.write(path)
    return path


def test_a_pdfs_lines_become_paragraphs_without_running_heads(tmp_path: Path) -> None:
    body = ["line of a paragraph that runs on", "and on over the margin, and ends here."]
    pages = [
        ["Annual report", f"{word} {body[0]}", f"{word} {body[1]}", f"Page {n}"]
        for n, word in enumerate(("Alpha", "Beta", "Gamma", "Delta"), start=1)
    ]
    source = read_pdf(pdf(tmp_path / "a.pdf", pages), False)
    assert source.blocks[0].text == f"Alpha {body[0]} Alpha {body[1]}"
    assert len(source.blocks) == 4
    assert {piece.text for piece in source.left_out} >= {"Annual report", "Page 1", "Page 4"}


def test_a_pdf_without_text(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="without text"):
        read_pdf(pdf(tmp_path / "a.pdf", [[]]), False)


def test_an_encrypted_pdf(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="encrypted"):
        read_pdf(pdf(tmp_path / "a.pdf", [["secret"]], password="x"), False)


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_a_damaged_pdf(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("pdf"), "a.pdf", b"%PDF-1.7\n" + data)
    with pytest.raises(CorpusError, match=r"a\.pdf"):
        read_pdf(path, False)


# --- Word ------------------------------------------------------------------------------------


def test_a_word_document(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("標題", 1)
    document.add_paragraph("第一段。")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "甲", "乙"
    document.add_paragraph("第二段。")
    document.save(str(tmp_path / "a.docx"))
    source = read_docx(tmp_path / "a.docx", False)
    assert [(b.level, b.text) for b in source.blocks] == [
        (1, "標題"),
        (0, "第一段。"),
        (0, "甲 | 乙"),
        (0, "第二段。"),
    ]


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * 30_000_000)
    with pytest.raises(CorpusError, match="unpacks"):
        read_docx(tmp_path / "a.docx", False)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_damaged_word_document(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorpusError, match=r"a\.docx"):
        read_docx(written(tmp_path, "a.docx", data), False)
