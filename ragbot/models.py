"""A model's name, as a user writes it, to what can be loaded: a file, a folder, or a hub id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ragbot.errors import ModelError
from ragbot.packaged import PACKAGED, assemble

PACKAGED_PREFIX = "packaged:"

Progress = Callable[[int, int], None]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EDGE = 1 << 16  # bytes at either end of a weight file that go into its fingerprint


def resolve_encoder(name: str, cache: Path, progress: Progress | None = None) -> str:
    """The folder or hub id of an encoder. Raises ModelError, which says what was tried."""
    return _resolve(name, "encoder", cache, progress)


def resolve_generator(name: str, cache: Path, progress: Progress | None = None) -> str:
    """The GGUF file, folder or hub id of a generator. Raises ModelError."""
    return _resolve(name, "generator", cache, progress)


def _resolve(
    name: str, kind: Literal["encoder", "generator"], cache: Path, progress: Progress | None
) -> str:
    if name.startswith(PACKAGED_PREFIX):
        return str(_packaged(name.removeprefix(PACKAGED_PREFIX), kind, cache, progress))
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    looks_local = name.startswith((".", "~", "/", "\\")) or name.lower().endswith(".gguf")
    if looks_local or not _HUB_ID.fullmatch(name):
        known = ", ".join(PACKAGED_PREFIX + m.name for m in PACKAGED.values() if m.kind == kind)
        why = "there is no such file or folder" if looks_local else "it is no file and no hub id"
        raise ModelError(
            f"The {kind} {name!r} is unknown, {why}: name {known}, a path, or a hub id OWNER/NAME."
        )
    return name


def _packaged(name: str, kind: str, cache: Path, progress: Progress | None) -> Path:
    fitting = [model.name for model in PACKAGED.values() if model.kind == kind]
    if name not in fitting:
        raise ModelError(f"There is no packaged {kind} {name!r}: use one of {', '.join(fitting)}.")
    return assemble(PACKAGED[name], cache, progress)


def fingerprint(model: str) -> str:
    """What tells one encoder from another, for the index: of a resolved folder, or the hub id.

    Configuration is hashed whole, weights by their size and both ends: enough to notice another
    model, and fast.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".txt"):
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            digest.update(path.name.encode() + _ends(path))
    return digest.hexdigest()[:32]


def _ends(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return str(size).encode() + head + file.read()
