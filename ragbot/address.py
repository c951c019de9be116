"""Where an index is kept: a folder of this machine, or a collection of a Milvus server.

Only the form of what was written is judged here; whether anything is there, its engine finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_FORM = "milvus://HOST:PORT/COLLECTION, milvus:PATH or a folder"
_SERVER = re.compile(r"milvus(\+tls)?://((?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5}))/([^/?#]+)/?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")  # Milvus allows 255; generations add to it
_LITE_NAME = "ragbot"


@dataclass(frozen=True, slots=True)
class Milvus:
    """A Milvus index: the alias `name` at `uri`, or in the Milvus Lite database at the path `lite`.

    Exactly one of the two is there. The token never shows.
    """

    name: str
    uri: str = ""
    lite: Path | None = None
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.lite is not None:
            return f"milvus:{self.lite}"
        scheme, _, host = self.uri.partition("://")
        return f"milvus{'+tls' if scheme == 'https' else ''}://{host}/{self.name}"


def index_place(written: str | Path | Milvus, token: str = "") -> Path | Milvus:
    """What an index setting names; `token` is the server's. Raises ValueError: no such form."""
    if isinstance(written, Milvus):
        return written
    text = str(written)
    if isinstance(written, Path) or not re.match(r"milvus(\+\w+)?:", text):
        return Path(text)
    scheme, _, rest = text.partition(":")
    if scheme == "milvus" and rest and not rest.startswith("//"):
        return Milvus(_LITE_NAME, lite=Path(rest))
    found = _SERVER.fullmatch(text)
    if not found or int(found[3]) > 65_535:
        raise ValueError(f"the form is {_FORM}; a token goes into RAGBOT_MILVUS_TOKEN")
    if not _NAME.fullmatch(found[4]):
        raise ValueError("a collection's name has letters, digits and _, and no digit in front")
    return Milvus(found[4], uri=f"{'https' if found[1] else 'http'}://{found[2]}", token=token)
