"""How the torture tests are told how long to go on, and how they run the command line apart."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("TORTURE_SEED", "1"))
ENCODER = "packaged:e5-small"


def rounds(short: int, long: int) -> pytest.MarkDecorator:
    """A parameter `rounds` for a test: few for every day, many for `-m torture`, where the variable
    TORTURE_ROUNDS may name another number."""
    many = int(os.environ.get("TORTURE_ROUNDS", long))
    return pytest.mark.parametrize(
        "rounds",
        [
            pytest.param(short, id="short"),
            pytest.param(many, id="long", marks=pytest.mark.torture),
        ],
    )


def dice(name: str) -> random.Random:
    """Chance that is the same each time for the same name and TORTURE_SEED."""
    return random.Random(f"{SEED} {name}")


class Moments:
    """Random moments in the course of something that takes about so many seconds. Where a kill comes
    too late they are drawn earlier from then on: a busy machine is not as slow all the time."""

    def __init__(self, chance: random.Random, seconds: float):
        self._chance, self._seconds = chance, seconds

    def next(self) -> float:
        """Seconds after the beginning."""
        return self._chance.uniform(0.0, self._seconds)

    def came(self, in_time: bool) -> bool:
        """Note of the last kill whether it came in time, and say so."""
        self._seconds *= 1.02 if in_time else 0.9
        return in_time


@dataclass(frozen=True)
class Ended:
    """How a process ended; `megabytes` is the most memory that it held at once."""

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float

    def refused(self) -> str:
        """What it said; fails unless that is one sentence and exit code 2."""
        assert self.code == 2, (self.code, self.err[-2000:])
        assert self.err.startswith("ragbot: ") and self.err.count("\n") == 1, self.err[-2000:]
        assert len(self.err) < 1000, self.err[:2000]
        return self.err


def environment(cache: Path | None = None, **more: str) -> dict[str, str]:
    """The variables of a child: this user's, with a cache of the test's own unless there is none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGBOT_")}
    own = {"RAGBOT_CACHE": str(cache)} if cache else {}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | own | more


def ragbot(*arguments: str | Path) -> list[str]:
    """The command line of `ragbot` with these arguments."""
    return [sys.executable, "-m", "ragbot", *map(str, arguments)]


def run(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    within: float = 120.0,
    **options: Any,
) -> Ended:
    """Run a process to its end, measured. Fails when it does not end within so many seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **options,
    )
    try:
        peak = 0
        while True:
            try:
                out, err = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, *status(process.pid, "VmHWM"))
                assert time.monotonic() - begun < within, "it hangs"
    finally:
        process.kill()
        process.wait()
    return Ended(process.returncode, out, err, time.monotonic() - begun, peak / 1e3)


def kill_after(command: Sequence[str], seconds: float, env: Mapping[str, str]) -> bool:
    """Start a process and kill it after so long; whether it was still there to be killed."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def status(pid: int, *names: str) -> list[int]:
    """Numbers that Linux tells of a process (VmRSS and VmHWM in kilobytes, Threads); 0 of none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = {line.partition(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    return [int(told.get(name, "0")) for name in names]


def open_files(pid: int) -> int:
    """How many descriptors a process on Linux holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
