"""No room, no right to write, and several at once: one sentence, and the old is still there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragbot.encoder import open_encoder
from ragbot.models import fingerprint
from tests.torture.test_killed import NEW, OLD, content, lay, litter
from tests.torture.tools import Ended, environment, ragbot, rounds, run

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="mounts and limits are made with Linux's means"
)

Mount = Callable[[Path, str], None]


@pytest.fixture
def mounted() -> Iterator[Mount]:
    """Mounts a file system in memory, with these options; undone afterwards."""
    made: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip("only root may mount")
        made.append(folder)

    yield mount
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Workplace:
    """Two corpora, and `ragbot index` from either into one folder."""

    def __init__(self, tmp_path: Path, tiny: Path):
        self.folder, self.tiny = tmp_path / "index", tiny
        self.old, self.new = lay(tmp_path / "old", OLD), lay(tmp_path / "new", NEW)
        self.env = environment(tmp_path / "cache")
        self.mark = fingerprint(str(tiny))
        self.encoder = open_encoder(str(tiny), name="tiny", fingerprint=self.mark, threads=1)

    def index(self, corpus: Path, **options: Any) -> Ended:
        return run(self.command(corpus), self.env, **options)

    def command(self, corpus: Path) -> list[str]:
        return ragbot("index", corpus, "--index", self.folder, "--encoder", self.tiny)

    def content(self) -> object:
        from ragbot.faiss_index import open_index

        return content(open_index(self.folder, self.mark), self.encoder)


@pytest.fixture
def workplace(tmp_path: Path, tiny: Path) -> Workplace:
    return Workplace(tmp_path, tiny)


# The larger one takes more than a few pages of a disk for each of its files.
LARGER = {
    "numbers.txt": "\n".join(f"Number {n} of 3000 is {n * 7919 % 3000}." for n in range(3000))
}


@pytest.mark.parametrize("new", [NEW, LARGER], ids=["small", "larger"])
@rounds(short=2, long=24)
def test_a_full_disk_leaves_the_old_index_and_no_litter(
    workplace: Workplace, mounted: Mount, rounds: int, new: dict[str, str]
) -> None:
    """With room for ever more of the new index, until it fits."""
    workplace.new = lay(workplace.new.parent / "newer", new)
    mounted(workplace.folder, "size=8m")
    assert workplace.index(workplace.new).code == 0
    whole = _size(workplace.folder)
    assert workplace.index(workplace.old).code == 0
    old = workplace.content()
    refused = 0
    for number in range(rounds):
        spare = whole * number // rounds
        filler = workplace.folder / "filler"
        free = shutil.disk_usage(workplace.folder).free
        with filler.open("wb") as file:
            file.write(b"\0" * max(0, free - spare))
        ended = workplace.index(workplace.new)
        filler.unlink()
        if ended.code == 0:
            break
        refused += 1
        assert "free some space" in ended.refused()
        assert workplace.content() == old
        assert litter(workplace.folder) == []
        assert len(list(workplace.folder.glob("generation-*"))) == 1
    print(f"{refused} times there was no room for the new index, and the old one stayed")
    assert refused
    assert workplace.index(workplace.new).code == 0 and workplace.content() != old


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("bytes_allowed", [0, 1500, pytest.param(100, marks=pytest.mark.torture)])
def test_a_limit_on_files_leaves_the_old_index(workplace: Workplace, bytes_allowed: int) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))

    assert workplace.index(workplace.old).code == 0
    old = workplace.content()
    ended = workplace.index(workplace.new, preexec_fn=limited)
    ended.refused()
    assert workplace.content() == old
    assert litter(workplace.folder) == []


def test_a_folder_that_may_only_be_read_is_answered_from_and_not_written(
    workplace: Workplace, mounted: Mount
) -> None:
    mounted(workplace.folder, "size=4m")
    assert workplace.index(workplace.old).code == 0
    old = workplace.content()
    subprocess.run(["mount", "-o", "remount,ro", str(workplace.folder)], check=True)
    said = workplace.index(workplace.new).refused()
    assert "--index" in said and "ead-only" in said
    asked = ragbot("search", "甲", "--index", workplace.folder, "--encoder", workplace.tiny)
    found = run(asked, workplace.env)
    assert found.code == 0 and not found.err, found.err
    assert workplace.content() == old


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")
def test_somebody_elses_folder_is_refused_in_one_sentence(workplace: Workplace) -> None:
    """As a user without rights, where root alone may write; and a corpus that he may not read."""

    def nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)

    workplace.folder.mkdir(mode=0o755)
    try:
        ended = run(
            [sys.executable, "-c", INDEX_AS_NOBODY, str(workplace.folder)],
            {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": "", "HOME": "/none"},
            preexec_fn=nobody,
            cwd="/",
        )
    except PermissionError:
        pytest.skip("nobody may not run this machine's Python")
    assert ended.code == 0, ended.err
    assert "cannot be written" in ended.out and ended.out.count("\n") == 1


INDEX_AS_NOBODY = """
import sys
from pathlib import Path
from typing import Any
from ragbot import store
from ragbot.errors import RagbotError
from ragbot.faiss_index import build_index
try:
    build_index(Path(sys.argv[1]), [], [], None)
except RagbotError as error:
    print(error)
"""


def test_a_corpus_with_a_file_that_may_not_be_read(workplace: Workplace, mounted: Mount) -> None:
    """A folder that hides nothing else: the file is told of, the others are indexed."""
    (workplace.old / "z.txt").symlink_to(workplace.old / "nowhere.txt")
    os.mkfifo(workplace.old / "pipe.txt")  # nobody writes to it: reading would never end
    ended = workplace.index(workplace.old)
    assert ended.code == 0 and "2 documents" in ended.out


@rounds(short=1, long=12)
def test_two_writers_at_once_and_a_reader_meanwhile(workplace: Workplace, rounds: int) -> None:
    assert workplace.index(workplace.old).code == 0
    contents = [workplace.content()]
    assert workplace.index(workplace.new).code == 0
    contents.append(workplace.content())
    reads = 0
    for _ in range(rounds):
        writers = [
            subprocess.Popen(
                workplace.command(corpus),
                env=workplace.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for corpus in (workplace.old, workplace.new)
        ]
        while any(writer.poll() is None for writer in writers):
            assert workplace.content() in contents
            reads += 1
            time.sleep(0.02)
        for writer in writers:
            assert writer.communicate()[1] == b"" and writer.returncode == 0
        assert workplace.content() in contents
        assert len(list(workplace.folder.glob("generation-*"))) == 1
    print(f"{rounds} pairs of writers, {reads} reads meanwhile")
