"""A folder whose content changes all at once: generations of files, and a manifest that names one.

A writer fills a new generation folder and then replaces `manifest.json` in one rename, so whoever
opens the store, and whenever a writer is killed, finds the old content or the new, never a mixture.
Every file is checked by its SHA-256 when it is opened, the manifest by one of its own. What the
files mean is not known here.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ragbot.errors import StoreError

MANIFEST = "manifest.json"
MEND = "build it anew with `ragbot index`"

_FILES, _GENERATION, _SEAL = "files", "generation", "sha256"
_STALE_SECONDS = 60.0  # far longer than anybody takes to write one small file


def publish(folder: Path, write: Callable[[Path], None], facts: Mapping[str, Any]) -> None:
    """Make what `write(new_folder)` writes the content of the store, described by `facts`.

    For one writer at a time. Raises OSError; the old content then stays.
    """
    _sweep(folder)
    number = 1 + max((int(p.name.split("-")[1]) for p in _generations(folder)), default=0)
    target = folder / f"generation-{number}"
    building = target.with_suffix(".tmp")
    building.mkdir()
    try:
        write(building)
        checksums = {name: _settled(building / name) for name in _names(building)}
        os.replace(building, target)
    except BaseException:  # a full disk above all: what failed must not go on filling it
        shutil.rmtree(building, ignore_errors=True)
        raise
    manifest = {**facts, _GENERATION: target.name, _FILES: checksums}
    manifest[_SEAL] = _seal(manifest)
    try:
        replace_file(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False))
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Delete what killed writers began, and the generations that the manifest does not name."""
    for leftover in folder.glob("generation-*.tmp"):
        shutil.rmtree(leftover)
    try:
        named = read_manifest(folder)[_GENERATION]
    except StoreError:
        return  # which of them was meant, nobody knows until there is a new one
    for old in _generations(folder):
        if old.name != named:
            shutil.rmtree(old, ignore_errors=True)  # a reader may hold it open where that locks it


def read_manifest(folder: Path) -> dict[str, Any]:
    """The facts the store was published with, and what it needs itself. Raises StoreError."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest[_FILES], dict):
            raise ValueError("not a manifest")
        if Path(manifest[_GENERATION]).name != manifest[_GENERATION]:
            raise ValueError("a generation elsewhere")
        return manifest
    except FileNotFoundError as error:
        raise StoreError(f"There is no index in {folder}: build it with `ragbot index`.") from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreError(f"The index in {folder} has no readable manifest: {MEND}.") from error


def verified(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """The folder of the generation that a manifest names. Raises OSError, ValueError: damaged."""
    if manifest.get(_SEAL, _seal(manifest)) != _seal(manifest):  # older ones have none
        raise ValueError("the manifest has changed")
    generation: Path = folder / manifest[_GENERATION]
    if _names(generation) != sorted(manifest[_FILES]):
        raise ValueError("files are missing or added")
    for name, checksum in manifest[_FILES].items():
        if sha256(generation / name) != checksum:
            raise ValueError(f"{name} has changed")
    return generation


def replace_file(path: Path, text: str) -> None:
    """Write a text file so that it is never seen half written. Raises OSError.

    What writers that were killed left of the same file is deleted.
    """
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        if _is_stale(leftover):
            leftover.unlink(missing_ok=True)
    # Drawn, since processes of two containers that share a folder may have the same number.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_stale(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:  # its writer has just finished
        return False


def _seal(manifest: Mapping[str, Any]) -> str:
    facts = {name: value for name, value in manifest.items() if name != _SEAL}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _settled(path: Path) -> str:
    """The SHA-256 of a file, once it lies on the disk: a power cut must not empty it later."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return sha256(path)


def _generations(folder: Path) -> list[Path]:
    return [p for p in folder.glob("generation-*") if p.name.split("-")[1].isdecimal()]


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
