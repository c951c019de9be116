"""Work on many things at once, by the workers of a Ray cluster (Ray Data); one is started on this
machine when none is named.

What the work is, its callers know. A worker that dies is replaced, and what it was at is done anew;
what is done comes back as it is done, no faster than it is taken.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from ragbot.encoder import Encoder
from ragbot.errors import ConfigError, RagbotError, StoreError
from ragbot.types import Progress

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Passages = Callable[[Sequence[str]], NDArray[float32]]

LOCAL, NEAREST = "local", "auto"
"""Addresses: a cluster that is started for the command, and the one this machine is part of."""

_ADDRESS = re.compile(rf"{LOCAL}|{NEAREST}|[\w.-]+:\d{{1,5}}")
_REMEDY = "start one with `ray start` on each machine, this one too, or name no address"
_REACH_SECONDS, _ANSWER_SECONDS = 5, 30  # to a port, which is quick; to a cluster's own word
_STUCK_SECONDS = 600  # without any result: what kills each worker that takes it up must end
_AHEAD = 2  # tasks that wait at each worker, so that none waits for the next

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Item], Result]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that this process is connected to."""

    workers: int

    def map(
        self, make: Callable[[], Work[Item, Result]], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        """The number and the result of each item, in no order, by what `make` makes in a worker.

        All of them are pickled. Raises the RagbotError that the work raises, and StoreError when
        workers die again and again or the cluster goes away.
        """
        if not items:
            return
        from ray.data import ActorPoolStrategy, from_items
        from ray.data.exceptions import ExecutionTimeoutError
        from ray.exceptions import RayError, UserCodeException

        rows = [{"number": n, "item": pickle.dumps(item)} for n, item in enumerate(items)]
        waiting = from_items(rows, override_num_blocks=len(rows))
        del rows  # they lie in the cluster's store now, which may be as much as the memory holds
        size = min(self.workers, len(items))
        done = waiting.map(
            _Worker,
            fn_constructor_args=(pickle.dumps(make), os.getcwd()),
            compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=_AHEAD),
            num_cpus=1,
        )
        try:
            for row in done.iter_rows():
                yield row["number"], _result(row["result"])
        except UserCodeException:  # a bug of the work's keeps its traceback
            raise
        except (RayError, ExecutionTimeoutError) as error:
            raise StoreError(
                f"The Ray cluster's workers are lost ({_last_line(str(error))}): look after them, "
                "then repeat the command, which goes on with what is not encoded yet."
            ) from error


class _Worker:
    """What runs in a worker. The work is made on its first item, whose error can be told."""

    def __init__(self, make: bytes, folder: str):
        self._make = make
        self._work: Callable[[Any], Any] | None = None
        with suppress(OSError):  # relative paths mean the same here, if they can
            os.chdir(folder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._work is None:
                self._work = pickle.loads(self._make)()
            result = self._work(pickle.loads(row["item"]))
        except RagbotError as error:
            result = error
        return {"number": row["number"], "result": pickle.dumps(result)}


def _result(pickled: bytes) -> Any:
    result = pickle.loads(pickled)
    if isinstance(result, RagbotError):
        raise result
    return result


class SpreadEncoder(Encoder):
    """An encoder whose passages a cluster's workers encode when they come in parts."""

    def __init__(self, encoder: Encoder, cluster: Cluster, make: Callable[[], Passages]):
        """`make` makes, in a worker, what encodes passages as `encoder` does."""
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.dimension, self.max_tokens = encoder.dimension, encoder.max_tokens
        self._encoder, self._cluster, self._make = encoder, cluster, make

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._encoder.queries(texts)

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        return self._encoder.passages(texts, progress)

    def count_tokens(self, text: str) -> int:
        return self._encoder.count_tokens(text)

    def in_parts(
        self, parts: Sequence[Sequence[str]], progress: Progress | None = None
    ) -> Iterator[tuple[int, NDArray[float32]]]:
        return self._cluster.map(self._make, parts)


# --- connecting ------------------------------------------------------------------------------


@contextmanager
def connected(address: str, workers: int) -> Iterator[Cluster]:
    """Be connected to the cluster at `address`, or to one of so many workers that ends with this.

    Raises ConfigError: no library, no such address, no cluster there.
    """
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"{address!r} is no address of a Ray cluster: name host:port, {NEAREST}, or {LOCAL}."
        )
    ray = _library()
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            with _hushed():
                _join(ray, address, workers, folder)
            yield Cluster(int(ray.cluster_resources().get("CPU", 0)) or 1)
        finally:
            ray.shutdown()


def _join(ray: Any, address: str, workers: int, folder: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != LOCAL:
        _require(address)
    try:
        if address == LOCAL:
            ray.init(LOCAL, num_cpus=workers, include_dashboard=False, _temp_dir=folder, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as error:  # of a node that does not start the library raises nothing narrower
        raise ConfigError(
            f"The Ray cluster {address!r} cannot be used ({_last_line(str(error))}): {_REMEDY}."
        ) from error


def _library() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else its maker is told
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f'Ray is not installed ({error}): run pip install "ragbot[ray]", or leave out --ray.'
        ) from error
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = settings.print_on_execution_start = False
    settings.execution_no_progress_timeout_s = _STUCK_SECONDS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing reaches standard error, also of what is not Python: Ray's core greets there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _require(address: str) -> None:
    """Raise ConfigError when no cluster answers: Ray itself would try for minutes."""
    if address != NEAREST:
        host, port = address.split(":")
        try:
            socket.create_connection((host, int(port)), _REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Nothing listens at {address} ({error}): {_REMEDY}.") from error
    asked = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"No Ray cluster answers at {address}: {_REMEDY}.") from error
    if done.returncode:
        why = _last_line(done.stderr)
        raise ConfigError(f"There is no Ray cluster at {address} ({why}): {_REMEDY}.")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].rstrip(".")
