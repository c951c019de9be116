"""The order of the passages, looked at anew: question and passage are read together by a model.

Any cross-encoder of sentence-transformers with one output will do. Where a model comes from,
`models.py` knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from ragbot.errors import ModelError
from ragbot.hub import loaded
from ragbot.types import Hit, Rerank

_CANDIDATES = 50  # hits that are read; what ranks below them stays there
_BATCH = 16
_REMEDY = "name a folder or a hub id of a cross-encoder with one output, or set no reranker"


def open_reranker(model: str, *, threads: int = 0, device: str | None = None) -> Rerank:
    """Load a resolved cross-encoder (a folder or a hub id). Raises ModelError.

    `threads` 0 takes every core; without a `device`, the GPU when there is one.
    """
    return Reranker(model, threads, device)


class Reranker:
    """Orders hits by a cross-encoder's scores. Threads take turns."""

    def __init__(self, model: str, threads: int, device: str | None):
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._model = _loaded(model, device)
        # Bare outputs: squeezed to between 0 and 1, the surest of them would become equal.
        self._bare = torch.nn.Identity()
        # Its tokenizer remembers from call to call how to pad and cut.
        self._lock = Lock()

    def __call__(self, question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        """The hits, best first, with new ranks; equal scores keep their order."""
        read, rest = hits[:_CANDIDATES], hits[_CANDIDATES:]
        order = self._order(question, [hit.chunk.passage for hit in read])
        ordered = [*(read[place] for place in order), *rest]
        # The score stays the retriever's: how sure an answer is, is read off that scale, and each
        # cross-encoder has a scale of its own.
        return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1)]

    def _order(self, question: str, passages: Sequence[str]) -> list[int]:
        import numpy as np

        if not passages:
            return []
        with self._lock:
            scores = self._model.predict(
                [(question, passage) for passage in passages],
                batch_size=_BATCH,
                activation_fn=self._bare,
                show_progress_bar=False,
            )
        order: list[int] = np.argsort(-scores, kind="stable").tolist()
        return order


def _loaded(model: str, device: str | None) -> Any:
    def load(local_files_only: bool) -> Any:
        from sentence_transformers import CrossEncoder

        fetched = CrossEncoder(model, device=device, local_files_only=local_files_only)
        return fetched.float()

    what = f"The reranker {model!r}"
    found = loaded(model, load, what, _REMEDY)
    if wrong := _wrong(found):
        raise ModelError(f"{what} {wrong}: {_REMEDY}.")
    return found


def _wrong(model: Any) -> str:
    """Why a model that could be loaded gives no scores worth the name; empty when it does."""
    if model.num_labels != 1:
        return f"has {model.num_labels} outputs"
    # What an encoder lacks to give a score is made up at random; what was saved as a cross-encoder
    # in several modules lacks nothing.
    classes = getattr(model.config, "architectures", None) or ()
    if len(model) == 1 and classes and not classes[0].endswith("ForSequenceClassification"):
        return f"is no cross-encoder but {classes[0]}"
    # Without its files a tokenizer is made up, too, and knows no word.
    if len(model.tokenizer) <= len(model.tokenizer.all_special_ids):
        return "lacks its tokenizer"
    return ""
