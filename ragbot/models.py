"""A model's name, as a user writes it, to what can be loaded: a file, a folder, or a hub id.

A packaged model is assembled on the way. Nothing is loaded here, and no hub is asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Literal

from ragbot.errors import ModelError
from ragbot.packaged import IDENTITY_FILE, PACKAGED, assemble, damaged_encoder
from ragbot.types import Progress

PACKAGED_PREFIX = "packaged:"


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EDGE = 1 << 16  # bytes at either end of a weight file that go into its fingerprint


def resolve_encoder(name: str, cache: Path, progress: Progress | None = None) -> str:
    """The folder or hub id of an encoder. Raises ModelError, which says what was tried."""
    return _resolve(name, "encoder", cache, progress)


def resolve_generator(name: str, cache: Path, progress: Progress | None = None) -> str:
    """The GGUF file, folder or hub id of a generator. Raises ModelError."""
    return _resolve(name, "generator", cache, progress)


def resolve_reranker(name: str) -> str:
    """The folder or hub id of a reranker; none is packaged. Raises ModelError."""
    return _located(name, "reranker", "a folder")


def _resolve(
    name: str, kind: Literal["encoder", "generator"], cache: Path, progress: Progress | None
) -> str:
    if name.startswith(PACKAGED_PREFIX):
        return str(_packaged(name.removeprefix(PACKAGED_PREFIX), kind, cache, progress))
    known = ", ".join(PACKAGED_PREFIX + m.name for m in PACKAGED.values() if m.kind == kind)
    return _located(name, kind, f"{known}, a path,")


def _located(name: str, kind: str, known: str) -> str:
    path = os.path.expanduser(name)
    if os.path.exists(path):
        return path
    looks_local = name.startswith((".", "~", "/", "\\")) or name.lower().endswith(".gguf")
    if looks_local or not _HUB_ID.fullmatch(name):
        why = "there is no such file or folder" if looks_local else "it is no file and no hub id"
        raise ModelError(
            f"The {kind} {name!r} is unknown, {why}: name {known} or a hub id OWNER/NAME."
        )
    return name


def _packaged(name: str, kind: str, cache: Path, progress: Progress | None) -> Path:
    model = PACKAGED.get(name)
    if model is None or model.kind != kind:
        fitting = ", ".join(PACKAGED_PREFIX + m.name for m in PACKAGED.values() if m.kind == kind)
        but = f" (it is of kind {model.kind})" if model else ""
        raise ModelError(f"There is no packaged {kind} {name!r}{but}: use one of {fitting}.")
    return assemble(model, cache, progress)


def fingerprint(model: str) -> str:
    """What tells one encoder from another, for the index: of a resolved folder, or the hub id.

    A packaged model has its own on record. Else configuration is hashed whole, weights by their
    size and both ends: enough to notice another model, and fast. Raises ModelError.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    try:
        if (folder / IDENTITY_FILE).is_file():
            kept = json.loads((folder / IDENTITY_FILE).read_text(encoding="utf-8"))
            return str(kept["identity"])
        return _hashed(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged_encoder(folder, error) from error


def _hashed(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".txt"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            digest.update(path.relative_to(folder).as_posix().encode() + _ends(path))
    return digest.hexdigest()[:32]


def _ends(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return str(size).encode() + head + file.read()
