"""Indexing by the workers of a real Ray cluster, two of them, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray.exceptions import UserCodeException

from ragbot.__main__ import main
from ragbot.cluster import LOCAL, Cluster, connected
from ragbot.config import load_config
from ragbot.corpus import Corpus
from ragbot.errors import ConfigError, CorpusError, ModelError
from ragbot.index import Index
from ragbot.store import read_manifest
from ragbot.types import Progress
from ragbot.workspace import _reader, _worker_encoder, default_encoder, renewed_index
from tests.test_encoder import tiny_encoder

pytestmark = pytest.mark.apart
WORKER = "ray::MapWorker"  # how Ray names the processes that hold the work
WORDS = ("ab x", "axx", "b", "x a b", "xx xa")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with connected(LOCAL, 2) as made:
        yield made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen files of forty paragraphs, many alike, among three that give no document."""
    folder = tmp_path_factory.mktemp("corpus")
    for file in range(20):
        lines = [
            f"{WORDS[n % 5]} {'ab' * (n % 7)} {'x' * file}. {WORDS[n % 3]}." for n in range(40)
        ]
        (folder / f"{file}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "5.pdf").write_bytes(b"no PDF")
    (folder / "6.txt").write_text(" \n", encoding="utf-8")
    (folder / "7.xyz").write_text("of no known type", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragbot.vectors._SLAB", 400)


Make = Callable[..., tuple[Index, Corpus]]


@pytest.fixture
def make(model: Path, corpus: Path, tmp_path: Path) -> Make:
    """Index the corpus, by a cluster or without; `told` is told what is encoded."""

    def make(
        name: str, by: Cluster | None, told: Progress = lambda done, total: None
    ) -> tuple[Index, Corpus]:
        place = name if name.startswith("milvus:") else tmp_path / name
        config = load_config(dict(encoder=str(model), index=place, corpus=corpus))

        def report(label: str) -> Progress:
            return told if label == "Encoding passages" else lambda done, total: None

        return renewed_index(config, corpus, default_encoder(config), report, by)

    return make


def descendants() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The contents of the index that stands in a folder."""
    made = folder / read_manifest(folder)["generation"]
    return {str(f.relative_to(made)): f.read_bytes() for f in made.rglob("*") if f.is_file()}


def test_every_item_has_its_result(cluster: Cluster) -> None:
    done = sorted(cluster.map(partial(partial, pow, 2), range(30)))
    assert done == [(n, 2**n) for n in range(30)]
    assert not list(cluster.map(partial(partial, pow, 2), []))


def test_a_bug_in_the_work_is_not_hidden(cluster: Cluster) -> None:
    with pytest.raises(UserCodeException, match="ZeroDivisionError"):
        list(cluster.map(partial(partial, divmod, 1), [0]))


def test_the_index_is_the_same_bit_by_bit(cluster: Cluster, make: Make, tmp_path: Path) -> None:
    alone, together = make("alone", None), make("together", cluster)
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    assert alone[0].manifest == together[0].manifest
    assert list(alone[0].chunks) == list(together[0].chunks)
    assert alone[1] == together[1] and len(together[1].skipped) == 3


@pytest.mark.usefixtures("hurried_milvus")
def test_an_index_on_milvus_is_the_same_too(cluster: Cluster, make: Make, tmp_path: Path) -> None:
    alone, together = (
        make(f"milvus:{tmp_path / name}.db", by)[0] for name, by in (("a", None), ("b", cluster))
    )
    assert alone.manifest == together.manifest
    assert list(alone.chunks) == list(together.chunks)
    for chunk in list(alone.chunks)[::100]:
        assert np.array_equal(alone.sentences_of(chunk), together.sentences_of(chunk))


def test_a_killed_worker_loses_and_doubles_nothing(
    cluster: Cluster, make: Make, tmp_path: Path, small_parts: None
) -> None:
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not killed and done > total / 4:
            worker = next(p for p in descendants() if p.name().startswith(WORKER))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        assert done <= total

    make("alone", None)
    make("together", cluster, kill_one)
    assert killed
    assert files(tmp_path / "alone") == files(tmp_path / "together")


def test_what_was_encoded_before_an_interruption_is_not_encoded_again(
    cluster: Cluster, make: Make, tmp_path: Path, small_parts: None
) -> None:
    told: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        told.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("together", cluster, interrupt)
    make("together", cluster, lambda done, total: told.append((done, total)))
    stopped = next(n for n, (done, total) in enumerate(told) if done > total / 2)
    assert told[stopped + 1][1] == told[stopped][1] - told[stopped][0]
    make("alone", None)
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    assert not (tmp_path / "together" / "encoding.part").exists()


def test_a_worker_that_sees_another_machine_says_so(
    cluster: Cluster, model: Path, corpus: Path, tmp_path: Path
) -> None:
    encoder = default_encoder(load_config(dict(encoder=str(model))))
    alike = partial(_worker_encoder, str(model), tmp_path, encoder.fingerprint)
    other = partial(_worker_encoder, str(model), tmp_path, "another")
    with pytest.raises(CorpusError, match=r"sees no .*gone"):
        list(cluster.map(partial(_reader, alike, tmp_path / "gone", False), [("a", corpus)]))
    with pytest.raises(ModelError, match="is another one than here"):
        list(cluster.map(partial(_reader, other, corpus, False), [("a", corpus)]))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_where_no_cluster_is_it_says_so_soon(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragbot.cluster._ANSWER_SECONDS", 2)
    for address, why in {
        "ray://here:1": "is no address",
        "127.0.0.1:1": "Nothing listens at",
        "127.0.0.1:99999": "Nothing listens at",
        f"127.0.0.1:{silent_port}": "No Ray cluster answers",
    }.items():
        begun = time.monotonic()
        with pytest.raises(ConfigError, match=why), connected(address, 1):
            pass
        assert time.monotonic() - begun < 60


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"ragbot\[ray\]"), connected(LOCAL, 1):
        pass


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ray", "gone"], "There is no corpus at gone"),
        (["gone", "--ray"], "There is no corpus at gone"),
        (["--ray", "--keep-all", "gone"], "There is no corpus at gone"),
        ([".", "--ray", "127.0.0.1:1"], "Nothing listens at 127.0.0.1:1"),
        (["--ray=127.0.0.1:1", "."], "Nothing listens at 127.0.0.1:1"),
    ],
)
def test_the_flag_needs_no_address(
    arguments: list[str],
    complaint: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["ragbot", "index", "--encoder", str(model), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


def test_an_interrupted_command_leaves_no_process(
    model: Path, tmp_path: Path, corpus: Path
) -> None:
    """From Ctrl-C on; what it says, a run to the end."""
    command = [sys.executable, "-m", "ragbot", "index", str(corpus), "--ray"]
    command += ["--encoder", str(model), "--index", str(tmp_path / "made")]
    root = str(Path(__file__).parents[1])
    settings = os.environ | {"PYTHONPATH": root, "RAGBOT_THREADS": "2"}
    process = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
    family: list[psutil.Process] = []
    while not any(one.name().startswith(WORKER) for one in family):
        assert process.poll() is None
        time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert not psutil.wait_procs(family, timeout=60)[1]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("19 documents, ") and not done.stderr
