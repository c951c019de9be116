"""Told to stop: exit codes, and what is left behind, for each way of being told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from ragbot.web.own.claim import claimed, vacate
from tests.torture.load import served
from tests.torture.test_killed import NEW, lay, litter
from tests.torture.tools import environment, ragbot, run

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="signals as Linux has them"
)
CODES = {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM, signal.SIGHUP: -signal.SIGHUP}


@pytest.mark.parametrize(
    ("sent", "share"),
    [
        (signal.SIGTERM, 0.3),
        (signal.SIGHUP, 0.9),
        (signal.SIGINT, 0.9),
        pytest.param(signal.SIGTERM, 0.9, marks=pytest.mark.torture),
        pytest.param(signal.SIGHUP, 0.3, marks=pytest.mark.torture),
    ],
)
def test_indexing_that_is_stopped(
    tmp_path: Path, tiny: Path, sent: signal.Signals, share: float
) -> None:
    """It says nothing, has the code of the signal, and the next run finds nothing in its way."""
    corpus, folder = lay(tmp_path / "corpus", NEW), tmp_path / "index"
    command = ragbot("index", corpus, "--index", folder, "--encoder", tiny)
    env = environment(tmp_path / "cache", TMPDIR=str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    whole = run(command, env)
    assert whole.code == 0
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(share * whole.seconds)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    # It may have been done before, or at its very end, where Python lets go of signals.
    assert process.returncode in (CODES[sent], 0, -sent), said
    assert "Traceback" not in said
    assert run(command, env).code == 0
    assert litter(folder) == [] and list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("how", ["head -c 0", "true", "head -n 1"])
def test_a_pipe_that_is_closed_early_is_no_error(tmp_path: Path, tiny: Path, how: str) -> None:
    corpus = lay(tmp_path / "corpus", NEW)
    command = " ".join(map(str, ragbot("search", "甲", "--corpus", corpus, "--encoder", tiny)))
    done = run(["bash", "-c", f"{command} | {how}"], environment(tmp_path / "cache"))
    assert done.err == "" and done.code == 0


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name
)
def test_a_folder_of_visitors_files_goes_at_the_next_start_at_the_latest(
    tmp_path: Path, sent: signal.Signals
) -> None:
    base = tmp_path / "visitors"
    claiming = (
        "import sys, time; from pathlib import Path; from ragbot.web.own.claim import claimed\n"
        "folder, claim = claimed(Path(sys.argv[1])); (folder / 'secret').write_text('x')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", claiming, str(base)], env=environment(), stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        assert len(list(base.glob("process-*/secret"))) == 1, "what the dead left is gone"
        process.send_signal(sent)
        process.wait()
    folder, claim = claimed(base)
    assert [path.name for path in base.glob("process-*/*")] == []
    vacate(folder, claim)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_server_that_is_told_twice_ends_at_once(sent: signal.Signals) -> None:
    with tempfile.TemporaryDirectory() as folder, served("clerk", Path(folder)) as (at, pid, log):
        assert httpx.get(f"{at}/healthz").status_code == 200
        os.kill(pid, sent)
        os.kill(pid, sent)
        end = time.monotonic() + 20
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.05)
        assert "Traceback" not in log.read_text(encoding="utf-8")
