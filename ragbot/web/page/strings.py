"""Every word of the page in its three languages, from `words.json`.

What the bot itself says in an answer is in `ragbot.phrases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from ragbot.types import Language

LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: Mapping[Language, str] = {"zh-Hant": "繁體中文", "zh-Hans": "简体中文", "en": "English"}
"""Each language as its own readers call it."""


def _read() -> dict[str, dict[Language, str]]:
    path = Path(__file__).with_name("words.json")
    rows: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return {key: dict(zip(LANGUAGES, row, strict=True)) for key, row in rows.items()}


WORDS = _read()


def word(key: str, language: Language) -> str:
    """What the page says for a key; places for values are in braces, as `str.format` has them."""
    return WORDS[key][language]
