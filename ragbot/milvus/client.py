"""The connection to Milvus: a server, or Milvus Lite in this process.

Whatever the library raises becomes a StoreError of one sentence, within seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ragbot.address import Milvus
from ragbot.errors import ConfigError, StoreError, UnreachableError
from ragbot.store import MEND

if TYPE_CHECKING:
    from pymilvus import MilvusClient

QUICK = 5.0  # seconds that anything may take for which somebody waits
WRITE = 60.0  # a batch of rows
SETTLE = 3600.0  # the server's own work on a new collection
_CHANNEL = {
    "grpc.max_reconnect_backoff_ms": 2000,  # else a server may be back for two minutes unseen
    # Every call has its own limit; for pings in between Milvus Lite hangs up.
    "grpc.keepalive_time_ms": (1 << 31) - 1,
    "grpc.keepalive_permit_without_calls": 0,
}
_LONGEST = 160  # characters of a server's own words


def connect(place: Milvus) -> MilvusClient:
    """A client of the server, or of Milvus Lite. Raises ConfigError, StoreError."""
    # Else gRPC writes to standard error whenever a server hangs up, as Milvus Lite does at the end.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from pymilvus import MilvusClient

        if place.lite is not None:
            import milvus_lite  # noqa: F401  # missing, it is told of like the other
    except ImportError as error:
        raise ConfigError(
            f'The index {place} needs a library ({error.name}): pip install "ragbot[milvus]".'
        ) from error
    for name in ("pymilvus", "pymilvus.milvus_client"):  # it prints what it raises, too
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if place.lite is None:
        _knock(place)
    uri = place.uri if place.lite is None else _lite(place.lite.absolute())
    with told(place):
        return MilvusClient(uri, token=place.token, timeout=QUICK, grpc_options=_CHANNEL)


def _knock(place: Milvus) -> None:
    """Raise UnreachableError when nobody listens: gRPC takes half a minute to give up at exit."""
    server = urlsplit(place.uri)
    try:
        socket.create_connection((server.hostname or "", server.port or 0), QUICK).close()
    except OSError as error:
        raise _unreachable(place, error.strerror or error) from error


def _unreachable(place: Milvus, reason: object) -> UnreachableError:
    return UnreachableError(
        f"Milvus at {place} does not do what it is asked ({reason}): see that it runs, or name"
        " another index with --index."
    )


@contextmanager
def told(place: Milvus) -> Iterator[None]:
    """What Milvus raises inside becomes an UnreachableError."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        raise _unreachable(place, _reason(error)) from error


def damaged(place: Milvus, what: object) -> StoreError:
    """The error for an index that is not whole."""
    return StoreError(f"The index in {place} is damaged ({what}): {MEND}.")


def _reason(error: Exception) -> str:
    message = getattr(error, "message", "") or getattr(error, "details", str)() or str(error)
    return " ".join(str(message).split())[:_LONGEST].rstrip(" .:") or type(error).__name__


@cache
def _lite(path: Path) -> str:
    """The address of Milvus Lite over the database at `path`, started once in a process."""
    from milvus_lite import DataDirLockedError
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        server, database, port = start_server_in_thread(str(path))
    except DataDirLockedError as error:
        raise StoreError(
            f"The index milvus:{path} is open in another program: wait for it, or use a Milvus"
            " server, which many share."
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(
            f"The index milvus:{path} cannot be opened ({error}): name another with --index."
        ) from error

    def close() -> None:
        server.stop(grace=None).wait()
        database.close()

    atexit.register(close)
    return f"http://127.0.0.1:{port}"
