"""The fixed sentences that a reader is told, in each language."""

from __future__ import annotations

from ragbot.types import Language

QUOTED: dict[Language, str] = {
    "zh-Hant": "原文寫道：「{}」。",
    "zh-Hans": "原文写道：“{}”。",
    "en": "In the words of the source: “{}”.",
}

ABSTENTION: dict[Language, str] = {
    "zh-Hant": "這些文件沒有提到這個問題的答案。",
    "zh-Hans": "这些文件没有提到这个问题的答案。",
    "en": "These documents do not contain the answer to this question.",
}

RELATED: dict[Language, str] = {
    "zh-Hant": "最接近的內容見[{}]。",
    "zh-Hans": "最接近的内容见[{}]。",
    "en": " What comes nearest is in [{}].",
}

DISAGREEMENT: dict[Language, str] = {
    "zh-Hant": "但另一處寫的是：「{}」。",
    "zh-Hans": "但另一处写的是：“{}”。",
    "en": " But another source says: “{}”.",
}
