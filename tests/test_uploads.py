"""A visitor's own documents: what is let in, what it costs the others, and that it goes again."""

from __future__ import annotations

import io
import os
import pickle
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from pypdf import PdfWriter

from ragbot.bot import RagBot
from ragbot.errors import StoreError
from ragbot.web.own import sandbox
from ragbot.web.own.files import Reason, shown_name, take_in
from ragbot.web.own.sandbox import read_apart
from ragbot.web.own.uploads import Limits, UploadError, Uploads
from tests.fakes import FakeEncoder, FakeEngine, reading

BRIDGE = "青山橋長430公尺，2016年完工。設計師來自海法。"
SHOP = "The bookshop is closed at weekends. Its owner teaches drawing."
QUIET = threading.Event()


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def site(make_bot: Callable[..., RagBot]) -> RagBot:
    return make_bot("公司在台北，有四十個員工。")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(site: RagBot, tmp_path: Path, clock: Clock) -> Iterator[Uploads]:
    made = Uploads(site, tmp_path / "own", clock=clock)
    yield made
    made.close()


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """A file as the page hands it over: its name, and where it lies under another one."""
    folder = tmp_path / "given"
    folder.mkdir()

    def give(name: str, data: str | bytes = BRIDGE) -> tuple[str, Path]:
        path = folder / f"upload-{len(list(folder.iterdir()))}"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return name, path

    return give


def add(uploads: Uploads, *files: tuple[str, Path], visitor: str = "a") -> None:
    uploads.add(visitor, files, silent, QUIET)


def refused(uploads: Uploads, *files: tuple[str, Path]) -> UploadError:
    with pytest.raises(UploadError) as caught:
        add(uploads, *files)
    return caught.value


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("報告.pdf", "報告.pdf"),
        ("Report.PDF", "Report.pdf"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\me\\報告.docx", "報告.docx"),
        ("a/..\\..//b.md", "b.md"),
        ("...txt", "document.txt"),
        (".txt", "document.txt"),
        ("  ..  .txt", "document.txt"),
        ("a\x00b\nc\x1b[31m.txt", "abc[31m.txt"),
        ("\u202egnp.txt", "gnp.txt"),
        ("a\u200b\u2066b\ufeff.txt", "ab.txt"),
        ("half\ud800.txt", "half.txt"),
        ('<b onload="x">:|?*.html', "_b onload=_x______.html"),
        ("a  \t b.txt", "a b.txt"),
        ("con.txt", "_con.txt"),
        ("NUL.tar.md", "_NUL.tar.md"),
        ("lpt1.txt", "_lpt1.txt"),
        ("com\u00b9.txt", "_com\u00b9.txt"),
        ("console.txt", "console.txt"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("字" * 300 + ".txt", "字" * 76 + ".txt"),
        ("a" * 75 + " .b.txt", "a" * 75 + ".txt"),
    ],
)
def test_a_name_is_made_fit_to_be_shown(name: str, shown: str) -> None:
    assert shown_name(name, ()) == shown
    assert shown_name(shown, ()) == shown, "what is fit stays as it is"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "name"),
        ("/", "name"),
        ("..", "name"),
        ("\u202e\u200b", "name"),
        ("a.exe", "kind"),
        ("archive.zip", "kind"),
        ("notes", "kind"),
        ("txt", "kind"),
        ("a.txt/b", "kind"),
        ("a.txt. ", "kind"),
        ("a.txt\x00.exe", "kind"),
        ("a.meta.json", "kind"),
    ],
)
def test_a_name_that_says_nothing_is_refused(name: str, reason: Reason) -> None:
    with pytest.raises(UploadError) as caught:
        shown_name(name, ())
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["報告.txt", "报告.TXT", "報\u200b告.txt", "x/報告.txt"])
def test_a_name_that_is_taken_is_numbered(name: str) -> None:
    taken = ["報告.txt", "报告 (2).txt"]
    assert shown_name(name, taken).endswith("告 (3).txt")


def test_a_numbered_name_is_no_longer_than_others() -> None:
    first = shown_name("字" * 300 + ".txt", ())
    second = shown_name("字" * 300 + ".txt", [first])
    assert second.endswith(" (2).txt") and len(second) == len(first)


# --- bytes -----------------------------------------------------------------------------------


def linked(path: Path) -> Path:
    link = path.with_name("link")
    link.symlink_to(path)
    return link


def hard_linked(path: Path) -> Path:
    os.link(path, path.with_name("second"))
    return path


def piped(path: Path) -> Path:
    os.mkfifo(path.with_name("pipe"))
    return path.with_name("pipe")


@pytest.mark.parametrize(
    "instead",
    [
        linked,
        hard_linked,
        piped,
        lambda path: path.parent,
        lambda path: Path("/dev/null"),
        lambda path: path.with_name("nowhere"),
        lambda path: Path("a\x00b"),
    ],
    ids=["link", "hard link", "pipe", "folder", "device", "nothing", "no path"],
)
def test_only_a_plain_file_is_read(
    uploads: Uploads, given: Callable[..., tuple[str, Path]], instead: Callable[[Path], Path]
) -> None:
    name, path = given("a.txt")
    assert refused(uploads, (name, instead(path))).reason == "unreadable"
    assert uploads.names("a") == ()


def test_what_is_taken_in_is_its_owners_alone(
    tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    name, path = given("a.txt")
    path.chmod(0o644)
    take_in(path, tmp_path / "taken", name)
    assert (tmp_path / "taken").read_text(encoding="utf-8") == BRIDGE
    assert stat.S_IMODE((tmp_path / "taken").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        take_in(path, tmp_path / "taken", name)


# --- what a file may hold --------------------------------------------------------------------


def locked_pdf() -> bytes:
    writer, out = PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret")
    writer.write(out)
    return out.getvalue()


def scanned_pdf() -> bytes:
    writer, out = PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 30_000_000)
    return out.getvalue()


@pytest.mark.parametrize(
    "case",
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\n ", "empty"),
        ("a.html", b"<html><body></body></html>", "empty"),
        ("a.pdf", scanned_pdf(), "empty"),
        ("a.pdf", locked_pdf(), "locked"),
        ("a.pdf", b"%PDF-1.7\nnothing", "unreadable"),
        ("a.docx", b"PK\x03\x04nothing", "unreadable"),
        ("a.docx", bomb(), "unreadable"),
        ("a.txt", bytes(range(256)) * 9, "unreadable"),
        ("a.txt", b"x" * 2001, "size"),
        ("a.txt", "字".encode() * 331, "size"),
        ("a.txt", b"So. " * 81, "size"),
        ("a.md", ("# " + "h" * 99 + "\n\na\n\nb\n\nc\n\nd").encode(), "size"),
    ],
)
def test_what_cannot_be_read_costs_its_owner_an_error(
    site: RagBot,
    tmp_path: Path,
    given: Callable[..., tuple[str, Path]],
    case: tuple[str, bytes, Reason],
) -> None:
    name, data, reason = case
    big = len(data) > 2001  # what is refused for its bytes alone is not the point there
    limits = Limits(bytes=1 << 20 if big else 2000, characters=330, pieces=80)
    uploads = Uploads(site, tmp_path / "own", limits)
    error = refused(uploads, given("../" + name, data))
    assert (error.reason, error.name) == (reason, name)
    assert str(tmp_path) not in str(error), "no visitor is told where files lie"
    assert not files_below(tmp_path / "own")
    uploads.close()


@pytest.mark.parametrize(
    ("name", "data", "limits"),
    [
        ("a.html", b"<div>x</div>" * 100_000, Limits(seconds=1)),
        ("a.txt", b"a\n" * 900_000, Limits(memory=60 << 20)),
    ],
    ids=["endless", "enormous"],
)
def test_time_and_memory_are_bounded(
    tmp_path: Path, given: Callable[..., tuple[str, Path]], name: str, data: bytes, limits: Limits
) -> None:
    path = given(name, data)[1]
    with pytest.raises(UploadError) as caught:
        read_apart(path.rename(tmp_path / name), name, limits)
    assert caught.value.reason == "costly"


def test_who_reads_a_strangers_file_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGBOT_API_KEY", "secret")
    assert "secret" not in sandbox._environment().values()


def test_what_no_file_accounts_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    said = b"Traceback\n  secret line\nModuleNotFoundError: No module named 'docx'\n"
    for ended in (0, 11, -9, 1):
        sandbox._note(ended, io.BytesIO(said))
    (record,) = caplog.records
    assert record.getMessage().endswith("ended with 1: ModuleNotFoundError: No module named 'docx'")


def test_a_title_tells_nothing_of_where_the_file_lay(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("橋.txt"), given("b.html", "<title>The bridge</title><p>It is long.</p>"))
    bot = uploads.bot("a")
    assert bot is not None
    titles = [document.title for document in bot.retriever.index.documents.values()]
    assert titles == ["橋", "The bridge"]


# --- whose documents they are ----------------------------------------------------------------


def test_own_documents_answer_their_visitor_alone(
    uploads: Uploads, site: RagBot, engine: FakeEngine, given: Callable[..., tuple[str, Path]]
) -> None:
    told: list[tuple[int, int]] = []
    file = given("../橋.txt")
    uploads.add("a", [file], lambda done, total: told.append((done, total)), QUIET)
    bot = uploads.bot("a")
    assert bot is not None and uploads.bot("b") is None
    engine.enqueue(reading(BRIDGE[:20], "青山橋長430公尺。"))
    answer = bot.ask("青山橋有多長？")
    assert [citation.doc for citation in answer.citations] == ["橋.txt"]
    assert bot.engine is site.engine, "the generator is shared"
    assert [hit.doc for hit in site.search("青山橋有多長？")] == ["doc1.txt"]
    assert told == sorted(told) and told[-1] == (100, 100)


def test_what_is_known_is_not_encoded_again(
    uploads: Uploads, encoder: FakeEncoder, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    encoder.encoded.clear()
    add(uploads, given("b.txt", SHOP))
    assert uploads.names("a") == ("a.txt", "b.txt")
    assert encoder.encoded and not any("青山橋" in text for text in encoder.encoded)
    encoder.encoded.clear()
    uploads.remove("a", "a.txt")
    assert uploads.names("a") == ("b.txt",) and not encoder.encoded


def test_files_of_one_name_are_told_apart(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"), given("b/A.txt", SHOP))
    add(uploads, given("a.txt", "The third."))
    assert uploads.names("a") == ("a.txt", "A (2).txt", "a (3).txt")


def test_the_last_document_takes_everything_with_it(
    uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    assert files_below(tmp_path / "own")
    uploads.remove("a", "nothing.txt")
    assert uploads.names("a") == ("a.txt",)
    uploads.remove("a", "a.txt")
    uploads.remove("nobody", "a.txt")
    assert uploads.names("a") == () and uploads.bot("a") is None
    assert not files_below(tmp_path / "own")
    add(uploads, given("b.txt"))
    assert uploads.names("a") == ("b.txt",)


def test_no_more_than_so_many_files(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, *(given(f"{n}.txt") for n in range(4)))
    error = refused(uploads, given("5.txt"), given("6.txt"))
    assert (error.reason, error.name) == ("count", "6.txt")
    assert len(uploads.names("a")) == 4, "all or none"
    add(uploads, given("5.txt"))
    assert len(uploads.names("a")) == 5


@pytest.mark.parametrize("limits", [Limits(characters=100), Limits(pieces=6)])
def test_the_limits_are_for_all_files_together(
    site: RagBot, tmp_path: Path, given: Callable[..., tuple[str, Path]], limits: Limits
) -> None:
    uploads = Uploads(site, tmp_path / "own", limits)
    add(uploads, given("a.txt", SHOP))
    error = refused(uploads, given("b.txt", SHOP), given("c.txt", SHOP))
    assert error.reason == "size" and error.limits == limits
    assert uploads.names("a") == ("a.txt",)
    uploads.close()


def test_the_memory_of_all_visitors_has_an_end(
    site: RagBot, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    uploads = Uploads(site, tmp_path / "own", Limits(everyone=3))
    add(uploads, given("a.txt"))
    with pytest.raises(UploadError, match="few minutes") as caught:
        add(uploads, given("b.txt"), visitor="b")
    assert caught.value.reason == "busy"
    uploads.forget("a")
    add(uploads, given("b.txt"), visitor="b")
    uploads.close()


# --- what goes wrong, and who leaves meanwhile -----------------------------------------------


def test_one_bad_file_leaves_everything_as_it_was(
    uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    before, there = uploads.bot("a"), files_below(tmp_path / "own")
    assert refused(uploads, given("b.txt", SHOP), given("c.pdf", "no PDF")).name == "c.pdf"
    assert uploads.bot("a") is before
    assert files_below(tmp_path / "own") == there


@pytest.mark.parametrize("at", [0, 20])
def test_what_is_cancelled_leaves_everything_as_it_was(
    uploads: Uploads, given: Callable[..., tuple[str, Path]], at: int
) -> None:
    add(uploads, given("a.txt"))
    before, cancel = uploads.bot("a"), threading.Event()

    def progress(done: int, total: int) -> None:
        if done >= at:
            cancel.set()

    with pytest.raises(UploadError) as caught:
        uploads.add("a", [given("b.txt", SHOP)], progress, cancel)
    assert caught.value.reason == "stopped"
    assert uploads.bot("a") is before


def test_what_progress_raises_stops_it(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uploads.add("a", [given("a.txt")], progress, QUIET)
    add(uploads, given("b.txt"))
    assert uploads.names("a") == ("b.txt",)


def test_a_full_disk_is_one_sentence(
    uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    (mine,) = (tmp_path / "own").glob("process-*[!k]")
    mine.rmdir()
    mine.write_text("no folder can be made here")
    error = refused(uploads, given("a.txt"))
    assert error.reason == "busy" and str(tmp_path) not in str(error)
    mine.unlink()


def test_one_visitors_changes_wait_for_each_other(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    files = [given(f"{n}.txt", f"Document number {n} speaks.") for n in range(3)]
    threads = [threading.Thread(target=add, args=(uploads, file)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(uploads.names("a")) == ["0.txt", "1.txt", "2.txt"]


def test_who_waits_for_his_own_adding_can_leave(
    uploads: Uploads, given: Callable[..., tuple[str, Path]]
) -> None:
    first, second = given("a.txt"), given("b.txt")
    cancel = threading.Event()
    said: list[UploadError] = []

    def progress(done: int, total: int) -> None:
        if not said:
            cancel.set()
            with pytest.raises(UploadError) as caught:
                uploads.add("a", [second], silent, cancel)
            said.append(caught.value)

    uploads.add("a", [first], progress, threading.Event())
    assert said[0].reason == "stopped" and uploads.names("a") == ("a.txt",)


def test_others_are_not_held_up(uploads: Uploads, given: Callable[..., tuple[str, Path]]) -> None:
    first, second = given("a.txt"), given("b.txt", SHOP)
    seen: list[tuple[str, ...]] = []

    def meanwhile() -> None:
        add(uploads, second, visitor="b")
        uploads.touch("a")
        uploads.sweep()
        seen.append(uploads.names("a"))

    def progress(done: int, total: int) -> None:
        if not seen:
            other = threading.Thread(target=meanwhile)
            other.start()
            other.join(60)

    uploads.add("a", [first], progress, QUIET)
    assert seen == [()]
    assert (uploads.names("a"), uploads.names("b")) == (("a.txt",), ("b.txt",))


@pytest.mark.parametrize("at", [0, 20])
def test_who_is_forgotten_while_adding_leaves_nothing(
    uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]], at: int
) -> None:
    add(uploads, given("a.txt"))

    def progress(done: int, total: int) -> None:
        if done >= at:
            uploads.forget("a")

    with pytest.raises(UploadError):
        uploads.add("a", [given("b.txt", SHOP)], progress, QUIET)
    assert uploads.names("a") == () and uploads.bot("a") is None
    assert not files_below(tmp_path / "own")


# --- everything goes again -------------------------------------------------------------------


def test_who_was_not_there_for_long_is_forgotten(
    uploads: Uploads, tmp_path: Path, clock: Clock, given: Callable[..., tuple[str, Path]]
) -> None:
    for visitor in ("gone", "touched", "asked"):
        add(uploads, given("a.txt"), visitor=visitor)
    clock.now = 29 * 60.0
    uploads.sweep()
    uploads.touch("touched")
    uploads.touch("nobody")
    assert uploads.bot("asked")
    clock.now = 31 * 60.0
    uploads.sweep()
    assert [uploads.names(visitor) for visitor in ("gone", "touched", "asked")] == [
        (), ("a.txt",), ("a.txt",)
    ]  # fmt: skip
    assert len(list((tmp_path / "own").glob("process-*/*"))) == 2
    clock.now = 99 * 60.0
    uploads.sweep()
    assert not files_below(tmp_path / "own")


def test_an_answer_under_way_outlives_its_documents(
    uploads: Uploads, engine: FakeEngine, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    bot = uploads.bot("a")
    uploads.forget("a")
    assert bot is not None
    engine.enqueue(reading(BRIDGE[:20], "青山橋長430公尺。"))
    assert bot.ask("青山橋有多長？").citations


def test_only_the_owner_can_look_into_it(
    uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    folders = [tmp_path / "own", *(tmp_path / "own").glob("process-*[!k]")]
    folders += (tmp_path / "own").glob("process-*/*")
    assert len(folders) == 3
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert "a.txt" not in {path.name for path in (tmp_path / "own").rglob("*")}


def test_a_folder_that_others_can_look_into_is_refused(site: RagBot, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(StoreError, match="chmod 700"):
        Uploads(site, tmp_path / "open")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another folder"):
        Uploads(site, tmp_path / "file")


def test_what_a_dead_process_left_goes_at_the_next_start(site: RagBot, tmp_path: Path) -> None:
    base = tmp_path / "own"
    base.mkdir(mode=0o700)
    for name in ("process-dead", "process-alive", "somebody-elses"):
        (base / name / "x").mkdir(parents=True)
    (base / "process-dead.lock").touch()
    (base / "process-unclaimed").mkdir()
    with FileLock(base / "process-alive.lock"):
        uploads = Uploads(site, base)
        left = {path.name for path in base.iterdir() if path.is_dir()}
    assert {"process-alive", "somebody-elses"} < left and len(left) == 3
    uploads.close()
    assert {path.name for path in base.iterdir() if path.is_dir()} == left & {
        "process-alive",
        "somebody-elses",
    }


def test_two_processes_share_a_folder(
    site: RagBot, uploads: Uploads, tmp_path: Path, given: Callable[..., tuple[str, Path]]
) -> None:
    add(uploads, given("a.txt"))
    there = files_below(tmp_path / "own")
    second = Uploads(site, tmp_path / "own")
    add(second, given("b.txt"))
    second.close()
    assert files_below(tmp_path / "own") == there
    add(uploads, given("c.txt", SHOP))
    assert uploads.names("a") == ("a.txt", "c.txt")


def test_the_end_of_the_process_is_the_end_of_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from ragbot.web.own.uploads import Uploads\n"
        "uploads = Uploads(None, pathlib.Path(sys.argv[1]))\n"
        "(uploads._folder / 'left').write_text('secret')\n"
        "print(uploads._folder)\n"
    )
    base = tmp_path / "own"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(base)], capture_output=True, text=True, check=True
    )
    assert "process-" in ran.stdout
    assert not list(base.glob("process-*"))


# --- what is said of it ----------------------------------------------------------------------


def test_limits_are_told_in_plain_numbers() -> None:
    told = replace(Limits(), kinds=(".txt", ".pdf")).summary()
    assert told == {
        "files": 5,
        "megabytes": 10,
        "characters": 400_000,
        "kinds": ".txt, .pdf",
        "minutes": 30,
    }


@pytest.mark.parametrize("reason", list(Reason.__args__))  # type: ignore[attr-defined]
def test_every_reason_is_a_sentence_that_travels(reason: Reason) -> None:
    error = UploadError(reason, "橋{0}.txt", Limits(files=7))
    assert str(error).endswith(".") and "{name}" not in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.name, copy.limits, str(copy)) == (
        reason,
        error.name,
        error.limits,
        str(error),
    )
