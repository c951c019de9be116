"""Texts to vectors. Queries and passages are encoded apart, each with the prompt its model wants.

Any sentence-transformers model will do. A folder that also holds its layers as ONNX takes a light
road, with the same vectors: no torch, a quarter of the start-up time, and, on two cores, more than
twice the passages a second.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ragbot.e5 import MAX_TOKENS, ONNX_FILE, PROMPTS
from ragbot.errors import ModelError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]

_BATCH = 32
_LIGHT_BATCH = 4  # larger ones are slower on a processor: padding costs more than it saves
_WORDS = "embeddings.word_embeddings.weight"


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


def open_encoder(model: str, *, name: str, fingerprint: str, threads: int = 0) -> Encoder:
    """Load a resolved model (a folder or a hub id). Raises ModelError."""
    if (Path(model) / ONNX_FILE).is_file():
        return LightEncoder(Path(model), name, fingerprint, threads)
    return SentenceEncoder(model, name, fingerprint, threads)


class LightEncoder:
    """A folder made by `ragbot.e5`, run by ONNX Runtime."""

    def __init__(self, folder: Path, name: str, fingerprint: str, threads: int):
        import onnxruntime
        from tokenizers import Tokenizer

        self.name, self.fingerprint, self.max_tokens = name, fingerprint, MAX_TOKENS
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session: Any = onnxruntime.InferenceSession(
                str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
            )
            self._words = _mapped(folder / "model.safetensors", _WORDS)
        except Exception as error:  # both libraries raise bare Exceptions of their own
            raise ModelError(
                f"The encoder in {folder} cannot be loaded ({error}): delete that folder, it is "
                "then made anew."
            ) from error
        self.dimension = int(self._words.shape[1])

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._encode([PROMPTS["query"] + text for text in texts], None)

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        return self._encode([PROMPTS["document"] + text for text in texts], progress)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode(self, texts: Sequence[str], progress: Progress | None) -> NDArray[float32]:
        import numpy as np

        tokens = [self._ids(text) for text in texts]
        # Like lengths together, the longest first: little padding, and time left is overestimated.
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        vectors = np.zeros((len(tokens), self.dimension), dtype=np.float32)
        for first in range(0, len(order), _LIGHT_BATCH):
            batch = order[first : first + _LIGHT_BATCH]
            vectors[batch] = self._run([tokens[i] for i in batch])
            if progress:
                progress(first + len(batch), len(order))
        return vectors

    def _run(self, batch: list[list[int]]) -> NDArray[float32]:
        import numpy as np

        longest = max(map(len, batch))
        words = np.zeros((len(batch), longest, self.dimension), dtype=np.float32)
        mask = np.zeros((len(batch), longest), dtype=np.float32)
        for row, ids in enumerate(batch):
            words[row, : len(ids)] = self._words[ids]
            mask[row, : len(ids)] = 1
        vectors: NDArray[float32] = self._session.run(None, {"words": words, "mask": mask})[0]
        return vectors

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]


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


class SentenceEncoder:
    """Any sentence-transformers model, on the GPU when there is one."""

    def __init__(self, model: str, name: str, fingerprint: str, threads: int):
        from sentence_transformers import SentenceTransformer

        self.name, self.fingerprint = name, fingerprint
        if threads:
            import torch

            torch.set_num_threads(threads)
        try:
            self._model: Any = SentenceTransformer(model)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise ModelError(
                f"The encoder {name!r} cannot be loaded ({reason}): name a sentence-transformers "
                "folder, a hub id that can be reached, or packaged:e5-small."
            ) from error
        self._prompts = _prompts(name, getattr(self._model, "prompts", {}))
        # Asked of the model itself: the method that tells it has another name in each release.
        self.dimension = len(self._model.encode(""))
        self.max_tokens = int(self._model.max_seq_length or MAX_TOKENS)

    def queries(self, texts: Sequence[str]) -> NDArray[float32]:
        return self._encode(texts, self._prompts["query"], None)

    def passages(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[float32]:
        return self._encode(texts, self._prompts["document"], progress)

    def count_tokens(self, text: str) -> int:
        return len(self._model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(
        self, texts: Sequence[str], prompt: str, progress: Progress | None
    ) -> NDArray[float32]:
        import numpy as np

        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        step = _BATCH * 8
        for first in range(0, len(order), step):
            batch = order[first : first + step]
            vectors[batch] = self._model.encode(
                [prompt + texts[i] for i in batch],
                prompt="",  # ours is put on above: the saved default must not come on top
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            if progress:
                progress(first + len(batch), len(order))
        return vectors


def _prompts(name: str, saved: dict[str, str]) -> dict[str, str]:
    """A model's own prompts; E5's where its name says so and none are saved; else none."""
    query = saved.get("query") or ""
    document = saved.get("document") or saved.get("passage") or ""
    if not query and not document and "e5" in name.lower().rsplit("/", 1)[-1].split("-"):
        return dict(PROMPTS)
    return {"query": query, "document": document}
