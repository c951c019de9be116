"""Hugging Face transformers as a generator: a hub id, a local folder, or a GGUF file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ragbot.engines.base import TextStream, drain, plain
from ragbot.errors import ModelError
from ragbot.types import Message, Usage


class HfEngine:
    """A causal chat model, on the GPU when there is one. Raises ModelError when it cannot load."""

    def __init__(self, model: str, *, threads: int = 0):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if threads:
            torch.set_num_threads(threads)
        source, options = _source(model)
        # bfloat16 halves the memory; processors without it compute it slowly, so they get float32.
        gpu = torch.cuda.is_available()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.bfloat16 if gpu else torch.float32, **options
            ).to("cuda" if gpu else "cpu")
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"transformers cannot load {model!r} ({reason}): name a folder or a hub id that "
                "can be reached with --llm."
            ) from error
        self._lock = threading.Lock()
        self.name = model

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        cancel: threading.Event | None = None,
        form: str = "",
    ) -> TextStream:
        return drain(partial(self._work, messages, max_tokens), cancel)

    def _work(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        emit: Callable[[str], None],
        stop: threading.Event,
    ) -> Usage:
        from transformers import StoppingCriteriaList, TextStreamer

        class Emitter(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                if text:
                    emit(text)

        prompt = self._tokenizer.apply_chat_template(
            plain(messages),
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        length = prompt["input_ids"].shape[1]
        with self._lock:  # one generation at a time: they would share the same cores
            output = self._model.generate(
                **prompt,
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._tokenizer.eos_token_id,
                streamer=Emitter(self._tokenizer, skip_prompt=True, skip_special_tokens=True),
                stopping_criteria=StoppingCriteriaList([lambda ids, scores: stop.is_set()]),
            )
        return Usage(length, output.shape[1] - length)


def _source(model: str) -> tuple[str, dict[str, str]]:
    path = Path(model)
    if path.suffix.lower() == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    return model, {}
