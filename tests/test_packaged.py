from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from ragbot.errors import ModelError
from ragbot.packaged import PACKAGED, Packaged, assemble, is_assembled

PARTS = [os.urandom(300_000), os.urandom(200_000), os.urandom(100_000)]


def install(site: Path, name: str, data: bytes) -> None:
    """A package that is really installed in `site`, with one file of data."""
    package, info = site / name, site / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "data.bin").write_bytes(data)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{name}/data.bin,,\n")


def packed(
    site: Path, name: str, kind: Literal["encoder", "generator"], parts: Mapping[str, bytes]
) -> Packaged:
    """A model whose parts lie in packages of those names, which are installed in `site`."""
    for package, part in parts.items():
        install(site, package, part)
    whole = b"".join(parts.values())
    return Packaged(
        name=name,
        kind=kind,
        upstream="test",
        licence="MIT",
        extra="models",
        version="1.0",
        distributions=tuple(parts),
        files=tuple(f"{package}/data.bin" for package in parts),
        sha256=hashlib.sha256(whole).hexdigest(),
        room=len(whole),
    )


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A generator in three parts, in packages that are really installed, in a folder of ours."""
    parts = {f"part{number}": part for number, part in enumerate(PARTS, start=1)}
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return packed(tmp_path / "site", "tiny", "generator", parts)


def site_of(tmp_path: Path) -> Path:
    return tmp_path / "site"


def test_parts_are_joined_and_the_whole_is_checked(model: Packaged, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = assemble(model, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == b"".join(PARTS)
    assert is_assembled(model, tmp_path / "cache")
    assert seen[-1] == (600_000, 600_000)


def test_a_second_time_nothing_is_done(model: Packaged, tmp_path: Path) -> None:
    path = assemble(model, tmp_path / "cache")
    before = path.stat()
    shutil.rmtree(site_of(tmp_path))  # it would fail if it looked
    assert assemble(model, tmp_path / "cache") == path
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("kept", [0, 1, 299_999, 300_000, 412_345, 600_000, 700_000])
def test_an_interrupted_assembly_goes_on(model: Packaged, tmp_path: Path, kept: int) -> None:
    target = model.target(tmp_path / "cache")
    target.parent.mkdir(parents=True)
    (target.parent / f"{target.name}.part").write_bytes((b"".join(PARTS) + b"x" * 200_000)[:kept])
    seen: list[int] = []
    path = assemble(model, tmp_path / "cache", lambda done, total: seen.append(done))
    assert path.read_bytes() == b"".join(PARTS)
    # Whole parts are kept, and only what was lacking is written.
    assert seen == [end for end in (300_000, 500_000, 600_000) if end > kept]
    assert not list(target.parent.glob("*.part"))


def test_what_was_left_behind_damaged_is_made_anew(model: Packaged, tmp_path: Path) -> None:
    target = model.target(tmp_path / "cache")
    target.parent.mkdir(parents=True)
    (target.parent / f"{target.name}.part").write_bytes(b"?" * 300_000)
    assert assemble(model, tmp_path / "cache").read_bytes() == b"".join(PARTS)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "removed"])
def test_a_damaged_model_in_the_cache_is_made_anew(
    model: Packaged, tmp_path: Path, damage: str
) -> None:
    path = assemble(model, tmp_path / "cache")
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        flipped = bytes([data[0] ^ 1]) + data[1:]
        path.write_bytes({"truncated": data[:-1], "flipped": flipped, "emptied": b""}[damage])
    assert not is_assembled(model, tmp_path / "cache")
    assert assemble(model, tmp_path / "cache").read_bytes() == data


def test_one_that_was_only_touched_is_kept(model: Packaged, tmp_path: Path) -> None:
    path = assemble(model, tmp_path / "cache")
    os.utime(path)
    shutil.rmtree(site_of(tmp_path))
    assert assemble(model, tmp_path / "cache") == path
    assert is_assembled(model, tmp_path / "cache")


def test_missing_packages_name_the_extra(model: Packaged, tmp_path: Path) -> None:
    absent = replace(model, distributions=("part1", "absent", "part3"))
    with pytest.raises(ModelError, match=r'pip install "ragbot\[models\]"') as caught:
        assemble(absent, tmp_path / "cache")
    assert "absent is missing" in str(caught.value)


def test_another_version_is_not_trusted(model: Packaged, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needs part1 2\.0"):
        assemble(replace(model, version="2.0"), tmp_path / "cache")


def test_a_package_without_its_file_is_not_complete(model: Packaged, tmp_path: Path) -> None:
    (site_of(tmp_path) / "part2" / "data.bin").unlink()
    with pytest.raises(ModelError, match=r"needs part2 1\.0 with part2/data\.bin.*--force-reinst"):
        assemble(model, tmp_path / "cache")


def test_packages_with_other_bytes_are_refused(model: Packaged, tmp_path: Path) -> None:
    (site_of(tmp_path) / "part2" / "data.bin").write_bytes(b"evil")
    with pytest.raises(ModelError, match=r"do not hold the known model.*--force-reinstall"):
        assemble(model, tmp_path / "cache")
    folder = tmp_path / "cache" / "models"
    assert [p.suffix for p in folder.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(model: Packaged, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match=r"cannot be written.*RAGBOT_CACHE"):
        assemble(model, tmp_path / "file" / "cache")


def test_no_space_left(model: Packaged, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is full.*RAGBOT_CACHE"):
        assemble(replace(model, room=1 << 60), tmp_path / "cache")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_cache_that_may_only_be_read(model: Packaged, tmp_path: Path) -> None:
    path = assemble(model, tmp_path / "cache")
    for folder in (path.parent, tmp_path / "cache"):
        folder.chmod(0o555)
    try:
        assert assemble(model, tmp_path / "cache") == path
        with pytest.raises(ModelError, match=r"cannot be written.*RAGBOT_CACHE"):
            assemble(replace(model, name="another"), tmp_path / "cache")
    finally:
        for folder in (tmp_path / "cache", path.parent):
            folder.chmod(0o755)


@pytest.mark.parametrize("lost", ["stamp", "model"])
def test_a_stamp_and_its_model_go_together(model: Packaged, tmp_path: Path, lost: str) -> None:
    path = assemble(model, tmp_path / "cache")
    stamp = next(path.parent.glob("*.json"))
    (stamp if lost == "stamp" else path).unlink()
    assert not is_assembled(model, tmp_path / "cache")
    assert assemble(model, tmp_path / "cache").read_bytes() == b"".join(PARTS)
    assert is_assembled(model, tmp_path / "cache")


ASSEMBLE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ragbot.errors import ModelError
from ragbot.packaged import Packaged, assemble

limit = int(sys.argv[4])
def progress(done, total):
    if limit and done >= limit:
        os.kill(os.getpid(), signal.SIGKILL)

print(assemble(eval(sys.argv[3]), Path(sys.argv[2]), progress))
"""


def start(model: Packaged, tmp_path: Path, killed_at: int = 0) -> subprocess.Popen[str]:
    arguments = [str(site_of(tmp_path)), str(tmp_path / "cache"), repr(model), str(killed_at)]
    return subprocess.Popen(
        [sys.executable, "-c", ASSEMBLE, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once(model: Packaged, tmp_path: Path) -> None:
    both = [start(model, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    assert Path(outputs[0]).read_bytes() == b"".join(PARTS)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_killed_in_the_middle(model: Packaged, tmp_path: Path) -> None:
    for killed_at in (1, 300_001, 600_000):
        process = start(model, tmp_path, killed_at)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert not model.target(tmp_path / "cache").exists()
    assert assemble(model, tmp_path / "cache").read_bytes() == b"".join(PARTS)


FILL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_write_that_fails_half_way_is_told_and_gone_on_with(
    model: Packaged, tmp_path: Path
) -> None:
    arguments = [str(site_of(tmp_path)), str(tmp_path / "cache"), repr(model), "0"]
    done = subprocess.run(
        [sys.executable, "-c", FILL + ASSEMBLE, *arguments], capture_output=True, text=True
    )
    assert "ModelError: The cache folder" in done.stderr and "RAGBOT_CACHE" in done.stderr
    assert assemble(model, tmp_path / "cache").read_bytes() == b"".join(PARTS)


def test_every_packaged_model_names_its_licence_and_parts() -> None:
    assert {model.kind for model in PACKAGED.values()} == {"encoder", "generator"}
    for name, model in PACKAGED.items():
        assert model.name == name and model.licence and len(model.sha256) == 64
        assert len(model.distributions) == len(model.files) == len(set(model.files))
