"""Damaged: whatever of an index or a model is cut off, emptied, changed, swapped or lost is noticed,
and refused in one sentence or made anew."""

from __future__ import annotations

import marshal
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ragbot.config import Config, load_config
from ragbot.encoder import Encoder, open_encoder
from ragbot.errors import RagbotError, StoreError
from ragbot.models import fingerprint
from ragbot.packaged import Packaged, assemble
from ragbot.words import _jieba, words
from ragbot.workspace import current_index, renewed_index
from tests.fakes import FakeEncoder
from tests.torture.test_killed import NEW, content, lay
from tests.torture.tools import dice, environment, ragbot, rounds, run
from tests.toy import write_toy_model

Damage = Callable[[Path, random.Random], bool]
"""Does it to a file; whether there was anything to do."""


def truncated(path: Path, chance: random.Random) -> bool:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))] if data else data)
    return bool(data)


def emptied(path: Path, chance: random.Random) -> bool:
    held = path.stat().st_size
    path.write_bytes(b"")
    return held > 0


def flipped(path: Path, chance: random.Random) -> bool:
    data = bytearray(path.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    return bool(data)


def rotten(path: Path, chance: random.Random) -> bool:
    """A bit is another, and the time of the file as it was: so a tired disk does it."""
    facts = path.stat()
    there = flipped(path, chance)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return there


def swapped(path: Path, chance: random.Random) -> bool:
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    different = [p for p in others if p.read_bytes() != path.read_bytes()]
    if different:
        other = chance.choice(different)
        mine, its = path.read_bytes(), other.read_bytes()
        path.write_bytes(its)
        other.write_bytes(mine)
    return bool(different)


def deleted(path: Path, chance: random.Random) -> bool:
    path.unlink()
    return True


def longer(path: Path, chance: random.Random) -> bool:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randint(1, 99)))
    return True


DAMAGES: Sequence[Damage] = (truncated, emptied, flipped, rotten, swapped, deleted, longer)


def one_sentence(error: BaseException) -> None:
    said = str(error)
    assert "\n" not in said and said.endswith(".") and len(said) < 800, said


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@rounds(short=1, long=40)
def test_an_index_with_any_file_damaged_is_refused_or_right(tmp_path: Path, rounds: int) -> None:
    encoder: Encoder = FakeEncoder()
    corpus, target = lay(tmp_path / "corpus", NEW), tmp_path / "index"
    config = load_config(dict(index=target, corpus=corpus))
    right = content(renewed_index(config, corpus, encoder)[0], encoder)
    shutil.copytree(target, tmp_path / "good")
    done: dict[str, int] = {"refused": 0, "harmless": 0}
    for number in range(rounds):
        for name in [path.relative_to(target) for path in files(target)]:
            for damage in DAMAGES:
                chance = dice(f"{name} {damage.__name__} {number}")
                if not damage(target / name, chance):
                    continue
                done[_state(config, encoder, right)] += 1
                # Made anew, it is right whatever was found there.
                assert content(renewed_index(config, corpus, encoder)[0], encoder) == right
                shutil.rmtree(target)
                shutil.copytree(tmp_path / "good", target)
    print(f"an index was damaged {sum(done.values())} times: {done}")
    assert done["refused"] > 3 * done["harmless"]


def _state(config: Config, encoder: Encoder, right: object) -> str:
    try:
        assert content(current_index(config, encoder), encoder) == right
        return "harmless"
    except StoreError as error:
        one_sentence(error)
        return "refused"


def test_the_command_refuses_a_damaged_index_and_mends_it(tmp_path: Path, tiny: Path) -> None:
    corpus = lay(tmp_path / "corpus", NEW)
    env = environment(tmp_path / "cache")
    common = ("--index", tmp_path / "index", "--encoder", tiny)
    assert run(ragbot("index", corpus, *common), env).code == 0
    victim = next((tmp_path / "index").glob("generation-*/chunks.jsonl"))
    flipped(victim, dice("command"))
    said = run(ragbot("search", "甲", *common), env).refused()
    assert "damaged" in said and "ragbot index" in said
    assert run(ragbot("index", corpus, *common), env).code == 0
    assert run(ragbot("search", "甲", *common), env).code == 0


# --- packaged models -------------------------------------------------------------------------


@rounds(short=1, long=10)
def test_an_assembled_model_with_any_file_damaged_is_made_anew(
    tmp_path: Path, packaged: Packaged, rounds: int
) -> None:
    cache = tmp_path / "cache"
    folder = assemble(packaged, cache)
    good = {path.relative_to(cache): path.read_bytes() for path in files(folder)}
    count = 0
    for number in range(rounds):
        for name in [path.relative_to(cache) for path in files(cache) if path.suffix != ".lock"]:
            for damage in DAMAGES:
                if damage is rotten:
                    continue  # a gigabyte is not looked through at each start
                if damage(cache / name, dice(f"{name} {damage.__name__} {number}")):
                    count += 1
                    assemble(packaged, cache)
                    for kept, data in good.items():
                        assert (cache / kept).read_bytes() == data, (name, damage.__name__, kept)
    print(f"a model was damaged {count} times, and made anew")


@pytest.mark.parametrize(
    "stamp",
    [
        '{"": 5}',
        '{"": [1]}',
        '{"": [1, 2, 3, 4]}',
        "[]",
        "[" * 100_000,
        '{"a": ["x", 1, "y"]}',
        "\0",
    ],
)
def test_a_stamp_of_anything_is_none(tmp_path: Path, packaged: Packaged, stamp: str) -> None:
    folder = assemble(packaged, tmp_path / "cache")
    before = (folder / "model.safetensors").read_bytes()
    next(folder.parent.glob("*.ragbot.json")).write_text(stamp)
    assert assemble(packaged, tmp_path / "cache") == folder
    assert (folder / "model.safetensors").read_bytes() == before


@rounds(short=1, long=10)
def test_an_encoder_of_ones_own_is_refused_or_opens(
    tmp_path: Path, tiny: Path, rounds: int
) -> None:
    """Nobody knows the right bytes of it: what counts is that it ends in one sentence, if it ends."""
    for number in range(rounds):
        for name in [path.relative_to(tiny) for path in files(tiny)]:
            for damage in (truncated, emptied, deleted):
                folder = tmp_path / "own"
                shutil.copytree(tiny, folder)
                damage(folder / name, dice(f"own {name} {damage.__name__} {number}"))
                try:
                    mark = fingerprint(str(folder))
                    if (folder / "onnx/layers.onnx").is_file():
                        open_encoder(str(folder), name="own", fingerprint=mark, threads=1)
                except RagbotError as error:
                    one_sentence(error)
                shutil.rmtree(folder)


LOAD = """
import sys
from ragbot.engines import open_engine
from ragbot.errors import RagbotError
from ragbot.types import Message
try:
    engine = open_engine("llamacpp", sys.argv[1], context=1024, threads=1)
    text = "".join(engine.stream([Message("system", "s"), Message("user", "u")], max_tokens=4))
    print("loaded")
except RagbotError as error:
    print(f"refused: {error}")
"""


@rounds(short=2, long=60)
def test_a_generator_that_is_damaged_is_refused_or_loads(tmp_path: Path, rounds: int) -> None:
    """The header of a real GGUF file, read by the real llama.cpp.

    At some damage llama.cpp ends its process, and ours with it: nothing is answered then, either.
    """
    good = write_toy_model(tmp_path / "good.gguf", ["<|im_start|>", "<|im_end|>"]).read_bytes()
    counts = {"loaded": 0, "refused": 0, "ended by llama.cpp": 0}
    for number in range(rounds):
        chance, held = dice(f"gguf {number}"), bytearray(good)
        if number % 2:
            del held[chance.randrange(len(held)) :]
        else:
            held[chance.randrange(min(len(held), 4096))] ^= 1 << chance.randrange(8)
        (tmp_path / "bad.gguf").write_bytes(held)
        ended = run([sys.executable, "-c", LOAD, str(tmp_path / "bad.gguf")])
        if ended.code == -signal.SIGABRT:
            counts["ended by llama.cpp"] += 1
            continue
        assert ended.code == 0, (number, ended.code, ended.err[-500:])
        said = ended.out.strip()
        counts[said.split(":")[0].split()[0]] += 1
        assert said.count("\n") == 0
    print(f"of {rounds} damaged generators {counts}")


# --- jieba's words ---------------------------------------------------------------------------


@pytest.fixture
def _words_anew() -> Iterator[None]:
    _jieba.cache_clear()
    yield
    _jieba.cache_clear()


@pytest.mark.usefixtures("_words_anew")
def test_words_that_were_damaged_or_exchanged_in_the_cache_are_not_loaded(tmp_path: Path) -> None:
    """jieba reads its cache with marshal, which would believe it, or bring the process down."""
    text = "醫療衛生軍團組建"
    right = words(text)
    cache = tmp_path / "cache" / "jieba.cache"
    good = cache.read_bytes()
    forged = marshal.dumps(({"医": 1}, 1))
    for bad in (forged, good[:-9], b"", b"\xf3" * 99, bytes([good[0] ^ 1]) + good[1:]):
        cache.write_bytes(bad)
        _jieba.cache_clear()
        assert words(text) == right
        assert cache.read_bytes() == good


@pytest.mark.usefixtures("_words_anew")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_words_are_found_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    right = words("醫療衛生軍團")
    _jieba.cache_clear()
    monkeypatch.setenv("RAGBOT_CACHE", "/proc/nothing")
    assert words("醫療衛生軍團") == right
