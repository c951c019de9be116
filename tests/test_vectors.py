from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragbot.index import Index
from ragbot.types import Progress
from ragbot.vectors import Vectors, encode, floats, key, short
from tests.fakes import FakeEncoder

WIDTH = 16
ROOT = Path(__file__).parents[1]
TEXTS = {key(text): text for text in (f"第{n}段。" * n for n in range(1, 60))}


def opened(folder: Path, encoder: str = "one") -> Vectors:
    return Vectors(folder / "part", encoder, WIDTH)


def number(text: str) -> int:
    return text.count("第")


def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """A vector a text, which tells the text."""
    return np.array([[number(text)] * WIDTH for text in texts], dtype=np.float32)


def in_parts(
    parts: Sequence[Sequence[str]], progress: Progress | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each part's vectors, the last part first."""
    for number in reversed(range(len(parts))):
        if progress:
            progress(0, len(parts[number]))
        yield number, vectors(parts[number])


def held(folder: Path, encoder: str = "one") -> int:
    made = opened(folder, encoder)
    return sum(one in made for one in TEXTS)


def test_numbers_keep_their_upper_halves() -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert np.abs(floats(short(numbers)) / numbers - 1).max() < 2**-8
    assert np.array_equal(short(floats(short(numbers))), short(numbers))


def test_what_was_encoded_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    encode(opened(tmp_path), TEXTS, in_parts)
    again = opened(tmp_path)
    rows = floats(again.rows(list(TEXTS)))
    assert rows[:, 0].tolist() == list(map(number, TEXTS.values()))
    again.discard()
    assert held(tmp_path) == 0


@pytest.mark.parametrize("cut", [1, 7, 51, 52, 53, 500])
def test_a_damaged_end_is_cut_off_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    encode(opened(tmp_path), TEXTS, in_parts)
    path = tmp_path / "part"
    data = path.read_bytes()
    size = 16 + 2 * WIDTH + 4
    path.write_bytes(data[:-cut])
    assert held(tmp_path) == len(TEXTS) - -(-cut // size)
    encode(again := opened(tmp_path), TEXTS, in_parts)
    assert floats(again.rows(list(TEXTS)))[:, 0].tolist() == list(map(number, TEXTS.values()))


def test_from_a_flipped_bit_on_nothing_is_believed(tmp_path: Path) -> None:
    encode(opened(tmp_path), TEXTS, in_parts)
    path = tmp_path / "part"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert 0 < held(tmp_path) < len(TEXTS)


def test_another_encoders_journal_is_thrown_away(tmp_path: Path) -> None:
    encode(opened(tmp_path), TEXTS, in_parts)
    assert held(tmp_path, "two") == 0
    assert held(tmp_path) == 0


def test_vectors_of_the_index_before_need_no_encoding(tmp_path: Path) -> None:
    encode(first := opened(tmp_path), TEXTS, in_parts)
    keys = list(TEXTS)[:5]
    old = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), first.rows(keys)
    first.discard()
    second = Vectors(tmp_path / "part", "one", WIDTH, old)
    encode(second, {one: TEXTS[one] for one in list(TEXTS)[5:]}, in_parts)
    assert floats(second.rows(list(TEXTS)))[:, 0].tolist() == list(map(number, TEXTS.values()))


def test_progress_counts_bytes_up_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragbot.vectors._SLAB", 500)
    told: list[tuple[int, int]] = []
    encode(opened(tmp_path), TEXTS, in_parts, lambda *args: told.append(args))
    whole = sum(len(text.encode()) for text in TEXTS.values())
    assert told == sorted(told) and len(told) > 5
    assert told[-1] == (whole, whole)


def test_a_stopped_run_goes_on_where_it_stopped(
    make_index: Callable[..., Index],
    encoder: FakeEncoder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("ragbot.vectors._SLAB", 30)
    texts = [f"第{n}段文字各不相同。" for n in range(20)]
    usual = FakeEncoder.passages

    def stopping(
        self: FakeEncoder, texts: Sequence[str], progress: Progress | None = None
    ) -> NDArray[np.float32]:
        if len(self.encoded) >= 8:
            raise KeyboardInterrupt
        return usual(self, texts, progress)

    monkeypatch.setattr(FakeEncoder, "passages", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_index(*texts)
    monkeypatch.setattr(FakeEncoder, "passages", usual)
    before = list(encoder.encoded)
    assert (tmp_path / "made" / "encoding.part").exists()
    make_index(*texts)
    assert sorted(encoder.encoded) == sorted(texts) and len(before) == 8
    assert not (tmp_path / "made" / "encoding.part").exists()


SLOW = """
import sys, time
from pathlib import Path
from ragbot.faiss_index import build_index
from ragbot.types import Chunk
from tests.fakes import FakeEncoder
import ragbot.vectors

class Slow(FakeEncoder):
    def passages(self, texts, progress=None):
        time.sleep(float(sys.argv[2]))
        return super().passages(texts, progress)

ragbot.vectors._SLAB = 1
encoder = Slow()
texts = [f"第{n}段。" for n in range(300)]
chunks = [Chunk("d", n, 0, len(text), text) for n, text in enumerate(texts, 1)]
build_index(Path(sys.argv[1]), [], chunks, encoder)
print(len(encoder.encoded))
"""


@pytest.mark.apart
def test_a_killed_process_loses_no_more_than_it_was_at(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path), "0.05"]
    process = subprocess.Popen(command, cwd=ROOT)
    part = tmp_path / "encoding.part"
    deadline = time.monotonic() + 300
    while not (part.exists() and part.stat().st_size > 6000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size // (16 + 2 * 512 + 4)
    command[-1] = "0"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert kept > 4 and int(done.stdout) == 300 - kept
    assert not part.exists()
