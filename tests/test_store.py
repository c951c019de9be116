from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragbot import store
from ragbot.errors import StoreError


def write(text: str) -> Callable[[Path], None]:
    def writer(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "content.txt").write_text(text, encoding="utf-8")

    return writer


def content(folder: Path) -> str:
    generation = store.verified(folder, store.read_manifest(folder))
    return (generation / "sub" / "content.txt").read_text(encoding="utf-8")


def test_what_is_published_is_found_and_the_old_is_gone(tmp_path: Path) -> None:
    store.publish(tmp_path, write("one"), {"n": 1})
    store.publish(tmp_path, write("two"), {"n": 2})
    assert content(tmp_path) == "two"
    assert store.read_manifest(tmp_path)["n"] == 2
    assert len(list(tmp_path.glob("generation-*"))) == 1


def test_a_failing_writer_leaves_the_old_content(tmp_path: Path) -> None:
    store.publish(tmp_path, write("one"), {})

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.publish(tmp_path, fail, {})
    assert content(tmp_path) == "one"
    store.publish(tmp_path, write("two"), {})
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove", "add"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    store.publish(tmp_path, write("some content"), {})
    file = next(tmp_path.glob("generation-*/sub/content.txt"))
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "add":
        (file.parent / "more").write_text("x", encoding="utf-8")
    else:
        changed = {"truncate": data[:-1], "flip": bytes([data[0] ^ 1]) + data[1:], "empty": b""}
        file.write_bytes(changed[damage])
    with pytest.raises((OSError, ValueError)):
        store.verified(tmp_path, store.read_manifest(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"generation": 3, "files": {}}', "\x00"])
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / store.MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="no readable manifest"):
        store.read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index in"):
        store.read_manifest(tmp_path)


PUBLISH_FOREVER = """
import sys, itertools
from pathlib import Path
from ragbot import store
for n in itertools.count():
    def write(folder):
        for part in "ab":
            (folder / part).write_text(f"{n}" * 1000)
    store.publish(Path(sys.argv[1]), write, {"n": n})
    print(n, flush=True)
"""


def test_killed_at_any_moment_the_old_or_the_new_is_there(tmp_path: Path) -> None:
    for delay in (0.0, 0.003, 0.007, 0.013, 0.029):
        writer = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_FOREVER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        manifest = store.read_manifest(tmp_path)
        generation = store.verified(tmp_path, manifest)
        parts = {(generation / part).read_text(encoding="utf-8") for part in "ab"}
        assert parts == {str(manifest["n"]) * 1000}


def test_a_replaced_file_is_whole(tmp_path: Path) -> None:
    store.replace_file(tmp_path / "a.json", json.dumps({"a": "甲"}))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "甲"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
