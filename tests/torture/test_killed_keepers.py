"""Killed while a model is assembled or a rating kept: the model is the right one afterwards, and what
was acknowledged is there once."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from ragbot.evaluation.rated import TABLE
from ragbot.packaged import PACKAGED, Packaged
from ragbot.store import sha256
from tests.torture.tools import ROOT, Moments, dice, environment, kill_after, rounds, run

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")

# --- models ----------------------------------------------------------------------------------

ASSEMBLE = """
import json, sys
from pathlib import Path
from ragbot.packaged import Packaged, assemble
print(assemble(Packaged(**json.loads(sys.argv[1])), Path(sys.argv[2])))
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
@pytest.mark.parametrize("name", ["e5-small", "qwen2.5-coder-0.5b"])
def test_the_assembly_of_a_model_killed_at_random_moments(roomy: Path, name: str) -> None:
    """The real packages; TORTURE_ROUNDS says how many are to be killed at work."""
    kills = int(os.environ.get("TORTURE_ROUNDS", "100"))
    kill_assemblies(PACKAGED[name], roomy, kills, environment())


def test_the_assembly_of_a_small_model_killed_at_random_moments(
    packaged: Packaged, tmp_path: Path, site_packages: Path
) -> None:
    env = environment()
    path = os.pathsep.join([env["PYTHONPATH"], str(site_packages)])
    kill_assemblies(packaged, tmp_path / "cache", 2, env | {"PYTHONPATH": path})


def kill_assemblies(model: Packaged, folder: Path, kills: int, env: Mapping[str, str]) -> None:
    """Kill so many at work, one to three in a row. The next one that is left alone has the right
    bytes, and no others."""
    command = [sys.executable, "-c", ASSEMBLE, json.dumps(asdict(model)), str(folder)]
    target, chance, killed = model.target(folder), dice(model.name), 0
    fresh = run(command, env, within=600)
    if "is not installed" in fresh.err:
        pytest.skip("the packages of this model are not installed")
    right, usual = _checksums(target), _names(target.parent)
    if target.is_file():
        assert right == {"": model.sha256}
    moments = Moments(chance, fresh.seconds)
    while killed < kills:
        _forget(target, chance.random() < 0.5)
        for _ in range(chance.randint(1, 3)):
            killed += moments.came(kill_after(command, moments.next(), env))
            assert len(_names(target.parent)) <= len(usual) + 3
        assert run(command, env, within=600).code == 0
        assert _checksums(target) == right
        for path in target.parent.glob("*.tmp"):
            os.utime(path, (0, 0))
        assert _names(target.parent) <= usual | {p.name for p in target.parent.glob("*.tmp")}
    print(f"{killed} assemblies of {model.name} were killed at work; it is right after each")


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


@rounds(short=3, long=200)
def test_a_rating_that_was_acknowledged_outlives_its_writer(tmp_path: Path, rounds: int) -> None:
    path, chance = tmp_path / "feedback.sqlite", dice("ratings")
    acknowledged: list[str] = []
    for number in range(rounds):
        acknowledged += _rate_and_die(path, f"w{number}", chance.randint(0, 3), chance.random())
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = file.execute(f"SELECT id, remark FROM {TABLE}").fetchall()
        there = dict(rows)
        assert set(acknowledged) <= set(there) and len(there) == len(rows)
        # At most one more a writer: kept, and killed before it could say so.
        assert len(there) <= len(acknowledged) + number + 1
        assert all(remark == f"remark {id.split('-')[1]}" for id, remark in rows)
    print(
        f"{len(acknowledged)} acknowledged ratings of {rounds} killed writers are there, each once"
    )
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
