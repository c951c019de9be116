from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ragbot import oneoffs
from ragbot.config import Config, load_config
from ragbot.faiss_index import LOCK
from ragbot.index import Index
from ragbot.retriever import Retriever
from ragbot.store import MANIFEST
from ragbot.workspace import current_index, index_store
from tests.fakes import FakeEncoder

HOUR = 3600


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "indexes"


def laid(shelf: Path, name: str, *, hours: float, size: int = 10) -> Path:
    """What looks like an index that was used so long ago."""
    folder = shelf / name
    (folder / "generation-1").mkdir(parents=True)
    (folder / "generation-1" / "rows.npy").write_bytes(b"x" * size)
    (folder / MANIFEST).write_text("{}")
    return used(folder, hours)


def used(folder: Path, hours: float) -> Path:
    then = time.time() - hours * HOUR
    os.utime(folder, (then, then))
    return folder


def names(shelf: Path) -> set[str]:
    return {path.name for path in shelf.iterdir() if not path.name.startswith(".")}


def test_the_latest_used_stay(shelf: Path) -> None:
    for number in range(oneoffs.MOST + 3):
        laid(shelf, f"i{number}", hours=2 + number)
    oneoffs.note_use(shelf / f"i{oneoffs.MOST + 2}")
    oneoffs.clear(shelf)
    latest = {f"i{number}" for number in range(oneoffs.MOST - 1)}
    assert names(shelf) == latest | {f"i{oneoffs.MOST + 2}"}


def test_they_fit_into_their_room_together(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragbot.oneoffs.ROOM", 250)
    for number in range(4):
        laid(shelf, f"i{number}", hours=2 + number, size=100)
    oneoffs.clear(shelf)
    assert names(shelf) == {"i0", "i1"}


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragbot.oneoffs.MOST", 0)


@pytest.mark.usefixtures("no_room")
def test_what_was_used_within_the_hour_stays(shelf: Path) -> None:
    laid(shelf, "old", hours=1.1)
    laid(shelf, "new", hours=0.9)
    oneoffs.clear(shelf)
    assert names(shelf) == {"new"}


@pytest.mark.usefixtures("no_room")
def test_what_is_being_written_stays(shelf: Path) -> None:
    folder = laid(shelf, "a", hours=9)
    with FileLock(folder / LOCK):
        used(folder, hours=9)
        oneoffs.clear(shelf)
        assert (folder / MANIFEST).exists()
    used(folder, hours=9)
    oneoffs.clear(shelf)
    assert names(shelf) == set()


@pytest.mark.usefixtures("no_room")
def test_ratings_stay(shelf: Path) -> None:
    folder = laid(shelf, "a", hours=9)
    (folder / "feedback.sqlite").write_bytes(b"ratings")
    used(folder, hours=9)
    oneoffs.clear(shelf)
    assert [path.name for path in folder.iterdir()] == ["feedback.sqlite"]


def test_no_shelf_and_no_rights_are_no_error(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oneoffs.note_use(shelf / "a")
    laid(shelf, "a", hours=9)
    monkeypatch.setattr("filelock.FileLock.acquire", _refused)
    oneoffs.note_use(shelf / "a")
    oneoffs.clear(shelf)
    assert names(shelf) == {"a"}


def _refused(*arguments: object, **options: object) -> None:
    raise PermissionError("a cache that may only be read")


# --- through the workspace -------------------------------------------------------------------


def asked(encoder: FakeEncoder, corpus: str) -> tuple[Config, Index]:
    config = load_config({"corpus": Path(corpus)})
    return config, current_index(config, encoder)


@pytest.mark.usefixtures("no_room")
def test_an_index_that_is_open_outlives_its_files(encoder: FakeEncoder) -> None:
    for name in ("a", "b"):
        Path(f"{name}.txt").write_text(f"The text of {name}. More of it.", encoding="utf-8")
    config, index = asked(encoder, "a.txt")
    folder = index_store(config, encoder).folder
    used(folder, hours=9)
    asked(encoder, "a.txt")  # to be asked is to be used
    asked(encoder, "b.txt")
    assert (folder / MANIFEST).exists()
    used(folder, hours=9)
    Path("b.txt").write_text("Another text.", encoding="utf-8")
    asked(encoder, "b.txt")
    assert not folder.exists()
    hit = Retriever(index, encoder).search("text of a", limit=1)[0]
    assert hit.text == index.documents["a.txt"].text
    assert [chunk.text for chunk in asked(encoder, "a.txt")[1].chunks] == [hit.text]
