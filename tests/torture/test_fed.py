"""Fed badly: whatever a file, a name, a question or a setting holds, it is read or refused in one
sentence, within bounds of time and memory."""

from __future__ import annotations

import io
import os
import random
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter

from ragbot.chunking import chunk
from ragbot.config import Config, load_config
from ragbot.corpus import load_corpus, read_document
from ragbot.errors import ConfigError, CorpusError, RagbotError
from ragbot.faiss_index import open_index
from ragbot.fence import checked, fenced
from ragbot.types import Document
from ragbot.workspace import renewed_index
from tests.conftest import ARTICLE
from tests.fakes import FakeEncoder
from tests.test_readers import MARKDOWN, PAGE, pdf
from tests.torture.tools import ROOT, dice, environment, ragbot, rounds, run

LINUX = sys.platform.startswith("linux")
TEXT = st.text(
    st.one_of(
        st.characters(),  # lone surrogates among them
        st.sampled_from("字。！？.!? \n\r\t\0\u200b\u202e\u2066\ufeff\ud800\x1b\x85\u2028-*#|`>[]"),
    ),
    max_size=200,
)


def whole(document: Document, limit: int = 60) -> None:
    """Offsets slice, nothing but white space is between the chunks, and all of it can be written."""
    chunks = chunk(document, limit=limit, count=len)
    for piece in chunks:
        assert document.text[piece.start : piece.end] == piece.text != ""
    for row in document.paragraphs:
        left = list(document.text[row.start : row.end])
        for piece in chunks:
            if piece.paragraph == row.number:
                left[piece.start - row.start : piece.end - row.start] = [""] * len(piece.text)
        assert not "".join(left).strip()
    "".join((document.name, document.title, document.text)).encode()


def one_sentence(error: RagbotError) -> None:
    said = str(error)
    assert "\n" not in said and len(said) < 800 and said.endswith("."), said


# --- texts, names, questions, settings -------------------------------------------------------


def squeezed(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
def test_no_letter_of_a_text_is_lost_but_what_is_reported(
    tmp_path: Path, text: str, encoding: str
) -> None:
    text = "這是開頭。" + text.encode("utf-8", "replace").decode()
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    try:
        document = read_document(path, "a.txt")
    except CorpusError as error:
        one_sentence(error)
        assert "\0" in text or encoding == "utf-16-le"
        return
    whole(document)
    if encoding != "utf-16-le":  # a guess, which odd characters may lead astray
        kept = document.text + "".join(one.text for one in document.left_out)
        assert sorted(squeezed(kept)) == sorted(squeezed(text))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([".txt", ".md", ".html", ".pdf", ".docx"]), st.binary(max_size=300))
def test_any_bytes_under_any_type(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / f"a{kind}"
    path.write_bytes(data)
    try:
        whole(read_document(path, path.name))
    except CorpusError as error:
        one_sentence(error)


NAMES = [b"\xff.txt", b"\xfe.txt", b"a\nb.txt", b"\x1b[31mred.txt", "\u202etxt.exe.md".encode()]


@pytest.mark.skipif(not LINUX, reason="file names hold any bytes on Linux only")
def test_file_names_of_any_bytes_are_indexed_and_told_apart(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, name in enumerate([*NAMES, "正常.txt".encode()]):
        Path(os.fsdecode(os.path.join(os.fsencode(corpus), name))).write_text(f"第{number}段話。")
    encoder = FakeEncoder()
    made, _ = renewed_index(load_config(dict(index=tmp_path / "index")), corpus, encoder)
    assert len(made.documents) == len(NAMES) + 1
    assert all(name.isprintable() for name in made.documents)
    assert open_index(tmp_path / "index", encoder.fingerprint).documents == made.documents


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(TEXT, st.integers(), st.lists(st.text())))
def test_a_title_of_anything(tmp_path: Path, title: object) -> None:
    import json

    (tmp_path / "a.txt").write_text("一段話。", encoding="utf-8")
    (tmp_path / "a.meta.json").write_text(json.dumps({"title": title}))
    whole(load_corpus(tmp_path).documents[0])


@given(TEXT)
def test_any_question_is_one_or_is_refused(text: str) -> None:
    try:
        question = checked(text)
    except ConfigError as error:
        one_sentence(error)
    else:
        question.encode()
        assert "\n" not in fenced(question)


VALUES = st.one_of(TEXT, st.integers(), st.floats(), st.booleans(), st.none(), st.binary())


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*Config.model_fields, "other"]), VALUES, max_size=3))
def test_any_settings_are_read_or_refused(flags: dict[str, object]) -> None:
    try:
        config = load_config(flags)
    except ConfigError as error:
        assert "\n" not in str(error)[:200] and len(str(error)) < 1500
    else:
        for path in (config.corpus, config.index, config.cache):
            Path(str(path)).exists()  # it may be absent, but it can be asked for


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.dictionaries(st.sampled_from([*Config.model_fields]), TEXT, max_size=2).map(
            lambda held: "\n".join(f"{k} = {v!r}" for k, v in held.items()).encode(
                "utf-8", "replace"
            )
        ),
        st.integers(1, 3000).map(lambda deep: b"top_k = " + b"[" * deep),
    )
)
def test_any_settings_file_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    Path("ragbot.toml").write_bytes(data)
    try:
        load_config()
    except ConfigError as error:
        assert len(str(error)) < 2000
    finally:
        Path("ragbot.toml").unlink()


@pytest.mark.parametrize(
    ("name", "value"),
    [("TOP_K", "１２³"), ("TOP_K", "9" * 5000), ("THREADS", "-1"), ("ENGINE", "x" * 9999)],
)
def test_a_variable_of_anything_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"RAGBOT_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load_config()
    one_sentence(caught.value)


# --- files that were real ones ---------------------------------------------------------------


def originals(kind: str, folder: Path) -> list[bytes]:
    if kind == "pdf":
        path = pdf(folder / "s.pdf", [["Alpha line of text", "another (paren) line"]] * 4)
        squeezed_one = PdfWriter(clone_from=path)
        for page in squeezed_one.pages:
            page.compress_content_streams()
        squeezed_one.write(folder / "t.pdf")
        return [path.read_bytes(), (folder / "t.pdf").read_bytes()]
    if kind == "docx":
        return [word_file(folder / "s.docx")]
    if kind == "html":
        return [PAGE.format(charset=name).encode(name) for name in ("utf-8", "big5")]
    if kind == "md":
        return [MARKDOWN.encode(), (ROOT / "README.md").read_bytes()]
    return [ARTICLE.read_bytes(), "華為在三月成立軍團。".encode("big5") * 50, b"x\n\n" * 30]


def word_file(path: Path) -> bytes:
    document = docx.Document()
    document.add_heading("標題", 1)
    document.add_paragraph("第一段。")
    document.add_table(1, 2).cell(0, 0).text = "甲"
    document.save(str(path))
    return path.read_bytes()


SPLICES = [
    b"\0",
    b"-1",
    b"9" * 12,
    b"<<",
    b">>",
    b"[",
    b"(",
    b"<",
    b"&#x110000;",
    b"\xff\xfe",
    b"nan",
]
NUMBERS = [0, -1, 1, 7, 65535, 2**31, 2**63, 10**30]


def mutated(chance: random.Random, data: bytes) -> bytes:
    held = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(held)) if held else 0
        end = at + chance.choice([1, 2, 16, 200])
        how = chance.randrange(6)
        if how == 0 and held:
            held[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del held[at:end]
        elif how == 2:
            held[at:end] = chance.randbytes(end - at)
        elif how == 3:
            held[at:at] = chance.choice(SPLICES)
        elif how == 4:
            del held[at:]
        elif numbers := list(re.finditer(rb"\d+", bytes(held))):
            place = chance.choice(numbers)
            held[place.start() : place.end()] = str(chance.choice(NUMBERS)).encode()
    return bytes(held)


def mutated_inside(chance: random.Random, data: bytes) -> bytes:
    """A part of a Word document changed, and the whole zipped again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w", 8) as made:
        parts = [name for name in given.namelist() if name.endswith((".xml", ".rels"))]
        victim = chance.choice(parts)
        for name in given.namelist():
            content = given.read(name)
            made.writestr(name, mutated(chance, content) if name == victim else content)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["txt", "md", "html", "docx", "pdf"])
@rounds(short=25, long=2000)
def test_a_file_that_was_a_real_one(tmp_path: Path, kind: str, rounds: int) -> None:
    seeds = originals(kind, tmp_path)
    path, read = tmp_path / f"a.{kind}", 0
    for number in range(rounds):
        chance = dice(f"{kind} {number}")
        data = chance.choice(seeds)
        inside = kind == "docx" and chance.random() < 0.7
        path.write_bytes((mutated_inside if inside else mutated)(chance, data))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole(read_document(path, path.name), limit=200)
            read += 1
        except CorpusError as error:
            one_sentence(error)
        except Exception as error:
            raise AssertionError(f"{kind} {number}") from error
    print(f"{kind}: {read} of {rounds} read, the rest refused in one sentence")


def test_a_text_with_a_broken_byte_is_never_read_as_other_characters(tmp_path: Path) -> None:
    path, data = tmp_path / "a.txt", ARTICLE.read_bytes()
    for number in range(40):
        held, chance = bytearray(data), dice(f"byte {number}")
        held[chance.randrange(len(held))] ^= 1 << chance.randrange(8)
        path.write_bytes(held)
        try:
            assert read_document(path, "a.txt").text.count("醫") > 20
        except CorpusError as error:
            one_sentence(error)


# --- large, deep, and meant to hurt ----------------------------------------------------------

LAID_OUT = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{}</w:body></w:document>'


def word(body: str, before: str = "") -> bytes:
    held, out = io.BytesIO(), io.BytesIO()
    docx.Document().save(held)
    with zipfile.ZipFile(held) as given, zipfile.ZipFile(out, "w", 8) as made:
        for name in given.namelist():
            content = given.read(name)
            if name == "word/document.xml":
                content = (before + LAID_OUT.format(body)).encode()
            made.writestr(name, content)
    return out.getvalue()


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", 8) as archive:
        for number in range(20):
            archive.writestr(f"word/{number}.xml", b"0" * 20_000_000)
    return out.getvalue()


LAUGHS = "<!DOCTYPE l [<!ENTITY a0 'lol'>{}]>".format(
    "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12))
)
PARAGRAPH = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
CELL = "<w:tc><w:tcPr><w:gridSpan w:val='{}'/></w:tcPr>" + PARAGRAPH.format("格") + "</w:tc>"
# Name, type, content, seconds of the processor, megabytes, and whether it can be read.
Case = tuple[str, str, Callable[[], bytes], float, float, bool]
SHORT: list[Case] = [
    ("deep HTML", "html", lambda: b"<div>" * 100_000 + b"x" + b"</div>" * 100_000, 20, 500, False),
    ("deep tables", "html", lambda: b"<table><tr><td>" * 33_000 + b"x", 20, 500, False),
    ("a line of <", "html", lambda: b"<" * 1_000_000, 20, 500, True),
    ("comments without end", "html", lambda: b"<!--" * 500_000, 20, 500, False),
    ("no punctuation", "txt", lambda: "字".encode() * 1_700_000, 20, 400, True),
    ("brackets", "md", lambda: b"[" * 500_000, 20, 400, True),
    ("quotes in quotes", "md", lambda: b"> " * 100_000 + b"x", 20, 400, True),
    ("backticks", "md", lambda: b"`" * 500_000, 20, 400, True),
    ("nothing", "md", lambda: b"\n \n", 20, 400, False),
    ("zip bomb", "docx", bomb, 20, 400, False),
    ("billion laughs", "docx", lambda: word(PARAGRAPH.format("&a11;"), LAUGHS), 20, 400, False),
    ("a cell over 100 million columns", "docx", lambda: word(f"<w:tbl><w:tr>{CELL.format(10**8)}</w:tr></w:tbl>"), 20, 400, True),
    ("tables in tables", "docx", lambda: word("<w:tbl><w:tr><w:tc>" * 80 + PARAGRAPH.format("深處") + "</w:tc></w:tr></w:tbl>" * 80), 20, 400, True),
]  # fmt: skip
LONG: list[Case] = [
    ("100 MB", "txt", lambda: ("華為三月組建醫療衛生軍團，股市飆升。\n" * 1_800_000).encode(), 120, 2500, True),
    ("a million lines", "txt", lambda: b"".join(b"line %d of it.\n" % n for n in range(1_000_000)), 120, 2000, True),
    ("one word of 5 MB", "txt", lambda: b"x" * 5_000_000, 60, 500, True),
    ("5 MB of words", "txt", lambda: b"word " * 1_000_000, 60, 1000, True),
    ("5 MB of full stops", "txt", lambda: b"a.)" * 1_700_000, 60, 500, True),
    ("gaps", "txt", lambda: (b"\n" + b" " * 2000) * 2500 + b"x", 60, 500, True),
    ("many paragraphs", "html", lambda: b"".join(b"<p>Paragraph %d has words.</p>" % n for n in range(50_000)), 60, 1000, True),
    ("many words in bold", "html", lambda: b"<p>" + b"<b>x</b> y" * 100_000, 60, 1000, True),
    ("many links", "html", lambda: b"<nav>" + b"<div><a href='/'>link</a></div>" * 60_000 + b"</nav><article>" + b"<p>A long sentence of the main article, which goes on for a while.</p>" * 3000, 60, 1000, True),
    ("many paragraphs", "md", lambda: b"x\n\n" * 50_000, 60, 1000, True),
    ("many headings", "md", lambda: b"# h\n\nx\n\n" * 50_000, 60, 1000, True),
    ("many paragraphs", "docx", lambda: word("".join(PARAGRAPH.format(f"字{n * 7919}") for n in range(100_000))), 60, 1500, True),
]  # fmt: skip
READ = """
import sys, time
from pathlib import Path
from ragbot.chunking import chunk
from ragbot.corpus import read_document
from ragbot.errors import CorpusError
path = Path(sys.argv[1])
try:
    document = read_document(path, path.name)
    chunks = chunk(document, limit=500, count=lambda text: len(text) // 2 + 1)
    assert all(document.text[c.start : c.end] == c.text for c in chunks)
    print(f"{len(document.paragraphs)} paragraphs, {len(chunks)} chunks")
except CorpusError as error:
    print(f"refused: {error}")
print(time.process_time())
"""


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=f"{case[1]} {case[0]}") for case in SHORT),
        *(
            pytest.param(case, id=f"{case[1]} {case[0]}", marks=pytest.mark.torture)
            for case in LONG
        ),
    ],
)
def test_a_file_that_is_meant_to_hurt(tmp_path: Path, case: Case) -> None:
    name, kind, content, seconds, megabytes, readable = case
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content())
    size = path.stat().st_size / 1e6
    ended = run([sys.executable, "-c", READ, str(path)], environment(tmp_path), within=600)
    assert ended.code == 0 and not ended.err, ended.err[-1000:]
    said, took = ended.out.strip().rsplit("\n", 1)
    print(
        f"{kind} {name}, {size:.1f} MB: {said[:90]}; {float(took):.1f} s, {ended.megabytes:.0f} MB"
    )
    assert said.startswith("refused: ") is not readable
    assert "\n" not in said
    assert float(took) < seconds
    assert ended.megabytes < megabytes


def test_what_word_shows_in_odd_places_is_kept(tmp_path: Path) -> None:
    run_of = "<w:r><w:t>{}</w:t></w:r>"
    body = (
        f"<w:sdt><w:sdtContent>{PARAGRAPH.format('控制項')}</w:sdtContent></w:sdt>"
        f"<w:p>{run_of.format('前')}<w:ins>{run_of.format('插入')}</w:ins>"
        f"<w:del><w:r><w:delText>刪除</w:delText></w:r></w:del><w:r><w:tab/></w:r>"
        f"<w:hyperlink>{run_of.format('連結')}</w:hyperlink></w:p>"
        f"<w:tbl><w:tr><w:tc>{PARAGRAPH.format('外')}<w:tbl><w:tr><w:tc>{PARAGRAPH.format('內')}"
        "</w:tc></w:tr></w:tbl><w:p/></w:tc></w:tr></w:tbl>"
    )
    (tmp_path / "a.docx").write_bytes(word(body))
    text = read_document(tmp_path / "a.docx", "a.docx").text
    assert text == "控制項\n前插入\t連結\n外\n內"


def locked(path: Path, algorithm: str) -> None:
    """A PDF that says it is locked by that cipher, whether or not this machine knows the cipher."""
    writer = PdfWriter(clone_from=pdf(path, [["secret"]]))
    writer.encrypt("x", algorithm="RC4-128")
    writer.write(path)
    if algorithm == "AES-256":
        data = path.read_bytes().replace(b"/V 2", b"/V 5").replace(b"/R 3", b"/R 6")
        path.write_bytes(data)


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_locked_pdf_is_told_as_one(tmp_path: Path, algorithm: str) -> None:
    locked(tmp_path / "a.pdf", algorithm)
    with pytest.raises(CorpusError) as caught:
        read_document(tmp_path / "a.pdf", "a.pdf")
    one_sentence(caught.value)
    assert "encrypted" in str(caught.value) or algorithm != "RC4-128"


def test_the_command_refuses_a_bad_file_in_one_sentence(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "a.docx").write_bytes(word(PARAGRAPH.format("&a11;"), LAUGHS))
    said = run(
        ragbot("search", "x", "--corpus", tmp_path / "a.docx", "--encoder", tiny),
        environment(tmp_path / "cache"),
    ).refused()
    assert "damaged Word document" in said
