"""Texts to vectors. Queries and passages are encoded apart, each with the prompt its model wants.

Any sentence-transformers model will do. A folder that also holds its layers as ONNX takes a light
road: no torch, a tenth of the start-up time. Queries have the same vectors there; passages are
multiplied in whole numbers, five times as fast as by torch, and their vectors are all but the same
(cosine 0.998). Where a model comes from, and what it is called, `models.py` knows.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from ragbot.e5 import (
    MAX_TOKENS,
    ONNX_FILE,
    PROMPTS,
    QUICK_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from ragbot.hub import loaded
from ragbot.layers import WORDS
from ragbot.packaged import damaged_encoder
from ragbot.types import Progress

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


_BATCH = 32
_REMEDY = "name a sentence-transformers folder, a hub id that can be reached, or packaged:e5-small"
_LIGHT_BATCH = 512  # tokens, padding included: fastest, for paragraphs as for single sentences


class Encoder(Protocol):
    """What the rest of ragbot knows of an encoder."""

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Vectors of questions: (n, d) float32, unit length."""
        ...

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        """Vectors of passages: (n, d) float32, unit length; what is too long is cut off."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens the text is, without prompt and special tokens."""
        ...

    def in_parts(
        self, parts: Sequence[Sequence[str]], progress: Progress | None = None
    ) -> Iterator[tuple[int, NDArray[float32]]]:
        """Vectors of passages, a part of them at a time, with the part's number.

        Here in turn, and `progress` is told of the texts of each part; an encoder may take several
        parts at once, and give them as they are done.
        """
        for number, texts in enumerate(parts):
            yield number, self.passages(texts, progress)


def open_encoder(
    model: str, *, name: str, fingerprint: str, threads: int = 0, device: str | None = None
) -> Encoder:
    """Load a resolved model (a folder or a hub id). Raises ModelError.

    `threads` 0 takes every core; naming a `device`, as torch does, rules out the light road.
    """
    needed = (ONNX_FILE, QUICK_FILE, TOKENIZER_FILE, WEIGHTS_FILE)
    light = all((Path(model) / file).is_file() for file in needed)
    if light and device is None:
        return LightEncoder(Path(model), name, fingerprint, threads)
    return SentenceEncoder(model, name, fingerprint, threads, device)


class LightEncoder(Encoder):
    """A folder made by `ragbot.e5`, run by ONNX Runtime. Threads may share it."""

    def __init__(self, folder: Path, name: str, fingerprint: str, threads: int):
        self.name, self.fingerprint, self.max_tokens = name, fingerprint, MAX_TOKENS
        self._folder, self._threads = folder, threads or os.cpu_count() or 1
        with _whole(folder):
            self._exact = _session(folder / ONNX_FILE)
            self._tokenizer = _tokenizer(folder / TOKENIZER_FILE)
            self._words = _mapped(folder / WEIGHTS_FILE, WORDS)
        self.dimension = int(self._words.shape[1])

    @cached_property
    def _quick(self) -> Any:
        with _whole(self._folder):
            return _session(self._folder / QUICK_FILE)

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._encode(self._exact, [PROMPTS["query"] + text for text in texts], None)

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        return self._encode(self._quick, [PROMPTS["document"] + text for text in texts], progress)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode(
        self, session: Any, texts: Sequence[str], progress: Progress | None
    ) -> NDArray[float32]:
        import numpy as np

        tokens = [self._ids(text) for text in texts]
        vectors = np.zeros((len(tokens), self.dimension), dtype=np.float32)
        batches = list(_batches([len(ids) for ids in tokens]))
        done = 0
        # A batch a core, each by itself, is a quarter faster than all cores at one batch.
        pool = ThreadPoolExecutor(self._threads)
        try:
            runs = pool.map(lambda batch: self._run(session, [tokens[i] for i in batch]), batches)
            for batch, rows in zip(batches, runs, strict=True):
                vectors[batch] = rows
                done += len(batch)
                if progress:
                    progress(done, len(tokens))
        finally:
            pool.shutdown(cancel_futures=True)  # who reports progress may have had enough
        return vectors

    def _run(self, session: Any, batch: list[list[int]]) -> NDArray[float32]:
        import numpy as np

        longest = max(map(len, batch))
        words = np.zeros((len(batch), longest, self.dimension), dtype=np.float32)
        mask = np.zeros((len(batch), longest), dtype=np.int32)
        for row, ids in enumerate(batch):
            words[row, : len(ids)] = self._words[ids]
            mask[row, : len(ids)] = 1
        vectors: NDArray[float32] = session.run(None, {"words": words, "mask": mask})[0]
        return vectors

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts of like length, the longest first: little padding, and an honest progress."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        count = max(1, _LIGHT_BATCH // lengths[order[0]])
        yield order[:count]
        order = order[count:]


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """What is wrong with the folder's files becomes a ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise damaged_encoder(folder, error) from error


def _session(path: Path) -> Any:
    # From 1.29 on the library reports its use to its maker unless told not to before it is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy  # noqa: F401  # the next one does it in C, and would print a Ctrl-C
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # it runs in the thread of whoever calls
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except (
        raised.Fail,
        raised.InvalidArgument,
        raised.InvalidGraph,
        raised.InvalidProtobuf,
    ) as error:
        raise ValueError(error) from error


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(error) from error


def _mapped(path: Path, tensor: str) -> NDArray[float32]:
    """A float32 tensor of a safetensors file, mapped: only the rows that are used are read."""
    import numpy as np

    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[tensor]
    if entry["dtype"] != "F32":
        raise ValueError(f"{tensor} is {entry['dtype']}, not F32")
    offset = 8 + length + entry["data_offsets"][0]
    return np.memmap(path, np.float32, "r", offset, tuple(entry["shape"]))


class SentenceEncoder(Encoder):
    """Any sentence-transformers model, on the GPU when there is one. Threads take turns."""

    def __init__(
        self, model: str, name: str, fingerprint: str, threads: int, device: str | None = None
    ):
        self.name, self.fingerprint = name, fingerprint
        if threads:
            import torch

            torch.set_num_threads(threads)
        self._model = _loaded(model, name, device)
        self._prompts = _prompts(name, self._model.prompts)
        # Its tokenizer remembers from call to call how to pad and cut.
        self._lock = Lock()
        # Asked of the model itself: the method that tells it has another name in each release.
        self.dimension = len(self._model.encode("", show_progress_bar=False))
        limit = self._model.max_seq_length
        self.max_tokens = int(limit) if limit and math.isfinite(limit) else MAX_TOKENS

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._encode(self._model.encode_query, texts, self._prompts["query"], None)

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        prompt = self._prompts["document"]
        return self._encode(self._model.encode_document, texts, prompt, progress)

    def count_tokens(self, text: str) -> int:
        tokenizer = self._model.tokenizer
        with self._lock:
            if not callable(tokenizer):  # that of a model without layers
                return len(tokenizer.encode(text, add_special_tokens=False).ids)
            return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encode(
        self, encode: Any, texts: Sequence[str], prompt: str, progress: Progress | None
    ) -> NDArray[float32]:
        import numpy as np

        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            with self._lock:
                vectors[batch] = encode(
                    [texts[i] for i in batch],
                    prompt=prompt,
                    batch_size=_BATCH,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            if progress:
                progress(first + len(batch), len(order))
        return vectors


def _loaded(model: str, name: str, device: str | None) -> Any:
    def load(local_files_only: bool) -> Any:
        from sentence_transformers import SentenceTransformer

        fetched = SentenceTransformer(model, device=device, local_files_only=local_files_only)
        return fetched.float()

    return loaded(model, load, f"The encoder {name!r}", _REMEDY)


def _prompts(name: str, saved: dict[str, str]) -> dict[str, str]:
    """A model's own prompts; E5's where its name says so and none are saved; else none."""
    query = saved.get("query") or ""
    document = next((saved[key] for key in ("document", "passage", "corpus") if saved.get(key)), "")
    if not query and not document and "e5" in PurePath(name).name.lower().split("-"):
        return dict(PROMPTS)
    return {"query": query, "document": document}
