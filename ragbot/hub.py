"""How a model of the Hugging Face libraries is loaded: from disk, else from the hub, and quietly.

Which class loads it, and what for, the caller says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ragbot.errors import ModelError

T = TypeVar("T")

_NOISY = ("huggingface_hub", "sentence_transformers", "transformers")


def loaded(model: str, load: Callable[[bool], T], what: str, remedy: str) -> T:
    """What `load(local_files_only)` gives for a folder or a hub id.

    Raises ModelError, which names the model by `what` and ends with the remedy.
    """
    try:
        with _quiet():
            return _fetched(model, load)
    except _complaints() as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(f"{what} cannot be loaded ({reason}): {remedy}.") from error


def _complaints() -> tuple[type[Exception], ...]:
    """What the libraries raise over a model that is not there, is another, or is damaged."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    wrong_files = (OSError, ValueError, ImportError, RuntimeError, SafetensorError)
    wrong_config = (TypeError, LookupError, AttributeError, StrictDataclassError)
    return wrong_files + wrong_config


def _fetched(model: str, load: Callable[[bool], T]) -> T:
    from huggingface_hub import snapshot_download

    try:  # what was fetched once needs no hub
        return load(True)
    except (OSError, ValueError, TypeError):
        if Path(model).exists():
            raise
        # Fails at once without a hub, where the loader would go on trying for a minute.
        snapshot_download(model, allow_patterns=["config.json", "modules.json"])
        return load(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' bars and warnings from the user while a model is loaded."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    bars.disable_progress_bar()
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if shown:
            bars.enable_progress_bar()
