"""Killed at any moment: what is there afterwards is the old or the new, whole, and nothing piles up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Set
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ragbot.config import load_config
from ragbot.encoder import Encoder, open_encoder
from ragbot.errors import StoreError
from ragbot.faiss_index import JOURNAL, open_index
from ragbot.index import Index
from ragbot.models import fingerprint
from ragbot.vectors import Vectors, key
from ragbot.workspace import renewed_index
from tests.fakes import FakeEncoder
from tests.torture.tools import ENCODER, Moments, dice, environment, kill_after, ragbot, rounds, run

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")

OLD = {
    "a.txt": "舊的第一段，說的是甲。\n舊的第二段，說的是乙。還有一句。",
    "b.txt": "Old text of b.",
}
NEW = {"a.txt": "新的第一段，說的是甲。\n新的第二段。\n第三段。", "c.md": "# C\n\nNew text. Of c."}
QUERIES = ["甲", "第二段說什麼？", "text"]


def lay(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


class Content:
    """All that can be asked of an index: its texts, and scores, which are equal but for rounding,
    since what is encoded together with what differs from run to run."""

    def __init__(self, index: Index, encoder: Encoder):
        for chunk in index.chunks:
            assert index.documents[chunk.doc].text[chunk.start : chunk.end] == chunk.text
        self.texts = sorted(index.documents.items()), tuple(index.chunks)
        found = [
            index.search(encoder.queries([query])[0], query, limit=len(index.chunks))
            for query in QUERIES
        ]
        self.scores = [
            (one.id, one.passage, one.sentence, one.lexical) for row in found for one in row
        ]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Content) or self.texts != other.texts:
            return False
        return bool(np.shape(self.scores) == np.shape(other.scores)) and bool(
            np.allclose(self.scores, other.scores, atol=0.003)
        )

    __hash__ = None  # type: ignore[assignment]


def content(index: Index, encoder: Encoder) -> Content:
    return Content(index, encoder)


KNOWN = {"manifest.json", "source.json", "writer.lock"}
JOURNALS = {JOURNAL}  # what a killed run had encoded, for the next one


def litter(folder: Path) -> list[str]:
    """Names in an index folder that are none of a finished index, aged so that they may go."""
    names = []
    for path in folder.iterdir():
        if path.suffix == ".tmp" and path.is_file():
            os.utime(path, (0, 0))
        generation = path.name.startswith("generation-") and path.suffix != ".tmp"
        if not generation and path.name not in KNOWN | JOURNALS:
            names.append(path.name)
    return names


# --- at each event in the file system --------------------------------------------------------

AT_EVENTS = """
import os, signal, sys
from pathlib import Path
from ragbot.config import load_config
from ragbot.encoder import open_encoder
from ragbot.words import words
from ragbot.workspace import renewed_index

target, corpus, folder = map(Path, sys.argv[1:4])
encoder = open_encoder(str(folder), name="tiny", fingerprint="tiny", threads=1)
encoder.passages(["x"])
import bm25s, faiss, filelock, numpy  # before the forks, so that each of them is quick
words("字")
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod"}

def index(kill_at):
    count = 0
    def heard(event, arguments):
        nonlocal count
        if event in EVENTS and str(target) in str(arguments[0]):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(heard)
    config = load_config(dict(index=target))
    renewed_index(config, corpus, encoder)
    return count

for line in sys.stdin:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(index(int(line))).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    print(os.read(read, 20).decode() or "killed", flush=True)
    os.close(read)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@rounds(short=12, long=10_000)
def test_an_index_killed_at_each_event_in_its_folder(
    tmp_path: Path, tiny: Path, rounds: int
) -> None:
    """`rounds` is how many of the events at most, evenly spread."""
    encoder = open_encoder(str(tiny), name="tiny", fingerprint="tiny", threads=1)
    corpora = [lay(tmp_path / "old", OLD), lay(tmp_path / "new", NEW)]
    target = tmp_path / "index"
    wanted = [
        content(
            renewed_index(load_config(dict(index=tmp_path / str(n))), corpus, encoder)[0], encoder
        )
        for n, corpus in enumerate(corpora)
    ]
    with (
        _killer(target, corpora[0], tiny) as old,
        _killer(target, corpora[1], tiny) as new,
    ):
        assert _told(old, 0).isdigit()
        events = range(1, int(_told(new, 0)) + 1)
        assert len(events) > 20
        for event in events[:: -(-len(events) // rounds)]:
            assert _told(old, 0).isdigit()
            assert content(open_index(target, "tiny"), encoder) == wanted[0]
            assert litter(target) == []
            _told(new, event)
            assert content(open_index(target, "tiny"), encoder) in wanted, event
            assert len(litter(target)) <= 2
            assert len(list(target.glob("generation-*"))) <= 2


def _killer(target: Path, corpus: Path, encoder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", AT_EVENTS, str(target), str(corpus), str(encoder)],
        env=environment(target.parent / "cache"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _told(killer: subprocess.Popen[str], event: object) -> str:
    """Index, killed at that event or moment; what is told of it."""
    assert killer.stdin and killer.stdout
    killer.stdin.write(f"{event}\n")
    killer.stdin.flush()
    return killer.stdout.readline().strip()


# --- at random moments -----------------------------------------------------------------------


@rounds(short=3, long=200)
def test_ragbot_index_killed_at_random_moments(tmp_path: Path, tiny: Path, rounds: int) -> None:
    """The real command, from its first moment to its last, with the packaged encoder when long."""
    real = rounds > 10
    name = ENCODER if real else str(tiny)
    env = environment(None if real else tmp_path / "cache")
    corpora = [lay(tmp_path / "old", OLD), lay(tmp_path / "new", NEW)]
    target, wanted = tmp_path / "index", []
    commands = [ragbot("index", one, "--index", target, "--encoder", name) for one in corpora]
    encoder = _opened(name, tiny)
    for command in commands:
        made = run(command, env)
        assert made.code == 0, made.err
        wanted.append(content(open_index(target, encoder.fingerprint), encoder))
    again = run(commands[0], env)
    assert again.code == 0, again.err
    assert content(open_index(target, encoder.fingerprint), encoder) == wanted[0]
    whole = again.seconds
    chance, killed, states = dice("index"), 0, []
    for number in range(rounds):
        killed += kill_after(commands[(number + 1) % 2], chance.uniform(0, 1.02 * whole), env)
        states.append(wanted.index(content(open_index(target, encoder.fingerprint), encoder)))
        assert len(litter(target)) <= 2, litter(target)
        assert len(list(target.glob("generation-*"))) <= 2
    changed = sum(a != b for a, b in pairwise([0, *states]))
    print(f"{killed} of {rounds} killed alive, of which {changed} had just made the new index")
    assert killed > rounds / 2
    assert run(commands[0], env).code == 0
    assert run(commands[1], env).code == 0
    assert litter(target) == [] and len(list(target.glob("generation-*"))) == 1


def _opened(name: str, tiny: Path) -> Encoder:
    from ragbot.config import default_cache
    from ragbot.models import resolve_encoder

    if name != ENCODER:
        return open_encoder(name, name=name, fingerprint=fingerprint(name), threads=1)
    os.environ.pop("RAGBOT_CACHE", None)
    folder = resolve_encoder(name, default_cache())
    return open_encoder(folder, name=name, fingerprint=fingerprint(folder), threads=1)


# --- the very first time ---------------------------------------------------------------------

AT_MOMENTS = """
import os, signal, sys, time
from pathlib import Path
import bm25s, faiss, filelock, numpy  # before the forks, so that each of them is at work at once
import ragbot.vectors
from ragbot.config import load_config
from ragbot.words import words
from ragbot.workspace import renewed_index
from tests.fakes import FakeEncoder

words("字")
ragbot.vectors._SLAB = 1  # each text is kept as soon as it is encoded

def index(target):
    code = 1
    try:
        renewed_index(load_config(dict(index=Path(target))), Path(sys.argv[1]), FakeEncoder())
        code = 0
    finally:
        os._exit(code)

for line in sys.stdin:
    target, seconds = line.split()
    begun = time.monotonic()
    child = os.fork()
    if not child:
        index(target)
    if float(seconds):
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, time.monotonic() - begun, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@rounds(short=8, long=200)
def test_a_first_index_killed_at_random_moments(tmp_path: Path, rounds: int) -> None:
    """There is none, which is said, or a whole one; what was encoded is not encoded again."""
    text = "\n".join(f"第{n}段說的是{n * n}。" for n in range(300))
    corpus, encoder = lay(tmp_path / "corpus", {"a.txt": text}), FakeEncoder()
    config = load_config(dict(index=tmp_path / "index"))
    wanted = content(renewed_index(config, corpus, encoder)[0], encoder)
    texts, killed, states = set(encoder.encoded), 0, Counter[str]()
    with _in_forks(corpus) as forks:
        usual = float(_told(forks, f"{tmp_path / 'usual'} 0").split()[1])
        moments = Moments(dice("first"), usual)
        while killed < rounds:
            target = tmp_path / "first"
            code = _told(forks, f"{target} {moments.next() + 0.001}").split()[0]
            assert code in ("0", f"-{signal.SIGKILL:d}")
            killed += moments.came(code != "0")
            there = _is_whole(target, wanted)
            before = texts if there else _journalled(target, texts)
            _finish(target, corpus, texts - before, wanted)
            if code != "0":
                states["whole" if there else "begun" if before else "not begun"] += 1
            shutil.rmtree(target)
    print(f"{killed} first indexings killed at work: {dict(states)}")
    assert states["begun"] or rounds < 100


def _in_forks(corpus: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", AT_MOMENTS, str(corpus)],
        env=environment(corpus.parent / "cache"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _is_whole(target: Path, wanted: Content) -> bool:
    """Whether there is an index; fails when it is another one than is wanted."""
    encoder = FakeEncoder()
    try:
        assert content(open_index(target, encoder.fingerprint), encoder) == wanted
        return True
    except StoreError as error:
        assert str(error) == f"There is no index in {target}: build it with `ragbot index`."
        return False


def _journalled(target: Path, texts: Set[str]) -> set[str]:
    """Which of the texts a killed run had encoded."""
    journal = target.with_suffix(".copy")  # opened, it is cut where it is damaged
    journal.unlink(missing_ok=True)
    if (target / JOURNAL).exists():
        shutil.copy(target / JOURNAL, journal)
    held = Vectors(journal, FakeEncoder().fingerprint, FakeEncoder().dimension)
    return {text for text in texts if key(text) in held}


def _finish(target: Path, corpus: Path, lacking: Set[str], wanted: Content) -> None:
    """Index once more: nothing is encoded but what lacks, and nothing of the killed run is left."""
    encoder = FakeEncoder()
    if target.exists():
        litter(target)  # it is a while later
    index, _ = renewed_index(load_config(dict(index=target)), corpus, encoder)
    assert sorted(encoder.encoded) == sorted(lacking)
    assert content(index, encoder) == wanted
    assert litter(target) == [] and not (target / JOURNAL).exists()
    assert len(list(target.glob("generation-*"))) == 1
