"""Killed at any moment: what is there afterwards is the old or the new, whole, and nothing piles up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ragbot.config import load_config
from ragbot.encoder import Encoder, open_encoder
from ragbot.evaluation.rated import TABLE
from ragbot.faiss_index import open_index
from ragbot.index import Index
from ragbot.models import fingerprint
from ragbot.packaged import PACKAGED
from ragbot.store import sha256
from ragbot.workspace import renewed_index
from tests.torture.tools import ENCODER, ROOT, dice, environment, kill_after, ragbot, rounds, run

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
JOURNALS = {"encoding.part"}  # what a killed run had encoded, for the next one


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


def _told(killer: subprocess.Popen[str], event: int) -> str:
    """Index, killed at that event; how many events there were, or that it was killed."""
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


# --- models ----------------------------------------------------------------------------------

ASSEMBLE = """
import sys
from pathlib import Path
from ragbot.packaged import PACKAGED, assemble
print(assemble(PACKAGED[sys.argv[1]], Path(sys.argv[2])))
"""


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: it is the moments that count, not the disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and shutil.disk_usage(memory).free > 3 << 30):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.torture
@pytest.mark.parametrize("model", ["e5-small", "qwen2.5-coder-0.5b"])
def test_the_assembly_of_a_model_killed_at_random_moments(roomy: Path, model: str) -> None:
    """The real packages; the next run that is left alone has the right bytes, and no others."""
    command = [sys.executable, "-c", ASSEMBLE, model, str(roomy)]
    target = PACKAGED[model].target(roomy)
    fresh = run(command, environment(), within=600)
    if "is not installed" in fresh.err:
        pytest.skip("the packages of this model are not installed")
    right = _checksums(target)
    if target.is_file():
        assert right == {"": PACKAGED[model].sha256}
    usual = _names(target.parent)
    chance = dice(model)
    number = int(os.environ.get("TORTURE_ROUNDS", "10"))
    for _ in range(number):
        _forget(target, chance.random() < 0.5)
        for _ in range(chance.randint(1, 3)):
            kill_after(command, chance.uniform(0, fresh.seconds), environment())
            assert len(_names(target.parent)) <= len(usual) + 3
        assert run(command, environment(), within=600).code == 0
        assert _checksums(target) == right
        for path in target.parent.glob("*.tmp"):
            os.utime(path, (0, 0))
        assert _names(target.parent) <= usual | {p.name for p in target.parent.glob("*.tmp")}


def _forget(target: Path, stamp_only: bool) -> None:
    stamp = target.with_name(f"{target.name}.ragbot.json")
    stamp.unlink()
    if not stamp_only:
        victim = target if target.is_file() else target / "model.safetensors"
        victim.unlink()


def _checksums(target: Path) -> dict[str, str]:
    if target.is_file():
        return {"": sha256(target)}
    return {
        path.relative_to(target).as_posix(): sha256(path)
        for path in target.rglob("*")
        if path.is_file()
    }


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- ratings ---------------------------------------------------------------------------------

RATE = """
import itertools, sys
from pathlib import Path
from ragbot.web.feedback import Feedback, Rated
from tests.test_feedback import ANSWER
kept = Feedback(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    kept.record(Rated(f"{sys.argv[2]}-{number}", ANSWER, "up", f"remark {number}"))
    print(number, flush=True)
"""


@rounds(short=3, long=100)
def test_a_rating_that_was_acknowledged_outlives_its_writer(tmp_path: Path, rounds: int) -> None:
    path, chance = tmp_path / "feedback.sqlite", dice("ratings")
    acknowledged: list[str] = []
    for number in range(rounds):
        acknowledged += _rate_and_die(path, f"w{number}", chance.randint(0, 3), chance.random())
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = file.execute(f"SELECT id, remark FROM {TABLE}").fetchall()
        there = dict(rows)
        assert set(acknowledged) <= set(there)
        # At most one more a writer: kept, and killed before it could say so.
        assert len(there) <= len(acknowledged) + number + 1
        assert all(remark == f"remark {id.split('-')[1]}" for id, remark in rows)
    print(f"{len(acknowledged)} acknowledged ratings of {rounds} killed writers are all there")
    assert acknowledged
    assert {p.name for p in tmp_path.iterdir()} - {"cache"} <= {
        path.name,
        f"{path.name}-journal",
    }


def _rate_and_die(path: Path, name: str, least: int, share: float) -> Sequence[str]:
    """Killed somewhere in the rating after so many; the ratings that it said it had kept."""
    writer = subprocess.Popen(
        [sys.executable, "-c", RATE, str(path), name],
        env=environment(path.parent / "cache"),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert writer.stdout and writer.stdout.readline() == b"ready\n"
    begun = time.monotonic()
    said = [writer.stdout.readline().strip() for _ in range(least)]
    each = (time.monotonic() - begun) / least if least else 0.01
    time.sleep(share * each)
    writer.send_signal(signal.SIGKILL)
    said += writer.communicate()[0].split(b"\n")[:-1]  # a last line may be half of one
    return [f"{name}-{json.loads(number)}" for number in said]
