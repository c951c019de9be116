"""The fixed sentences that a reader is told, in each language; and how a model refuses."""

from __future__ import annotations

import re

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

OUT_OF_REACH: dict[Language, str] = {
    "zh-Hant": "抱歉，目前無法讀取這些文件。請稍後再問一次。",
    "zh-Hans": "抱歉，目前无法读取这些文件。请稍后再问一次。",
    "en": "Sorry, these documents cannot be read at the moment. Please ask again in a while.",
}

GREETING: dict[Language, str] = {
    "zh-Hant": "你好！請就這些文件提問，每一句回答都會附上出處。",
    "zh-Hans": "你好！请就这些文件提问，每一句回答都会附上出处。",
    "en": "Hello! Ask about these documents: each sentence of an answer comes with its source.",
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

# What a model writes instead of the agreed word when it has nothing to say.
_REFUSAL = re.compile(
    r"(?:資料|资料|文章|文中|來源|来源|原文)[^。]{0,12}(?:沒有|没有|未|並未|并未|不包含|無|无)"
    r"[^。]{0,6}(?:提到|提及|提供|說明|说明|涉及|包含|給出|给出)"
    r"|(?:無法|无法)(?:回答|確定|确定|得知|判斷|判断)"
    r"|(?:sources?|text|article|passages?|information)[^.]{0,20} (?:do|does|did|is|are)(?: not|n't)"
    r" (?:mention|say|contain|provide|state|specify|include|provided|mentioned|given)"
    r"|not (?:mentioned|stated|specified|provided|given) in the|cannot (?:answer|be determined)"
    r"|no (?:information|mention)",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W*(?:无|無|没有|沒有|none)\W*", re.IGNORECASE)


_GREETING = re.compile(
    r"\W*(?:[你您]好|大家好|哈[啰喽]|嗨|早上好|晚上好|下午好|[早午晚]安|多?谢谢?"
    r"|hi|hello|hey|good (?:morning|afternoon|evening)|thanks|thank you)"
    r"(?:[\W_]|[啊呀吗了你您]|there|all|ragbot|very much)*"
)


def greets(question: str) -> bool:
    """Whether a folded question only greets or thanks."""
    return bool(_GREETING.fullmatch(question))


def is_none(written: str) -> bool:
    """Whether what the model wrote is the agreed word for nothing, or as good as that."""
    return bool(_NOTHING.fullmatch(written))


def refuses(sentence: str) -> bool:
    """Whether what the model wrote only says that the text does not say."""
    return is_none(sentence) or bool(_REFUSAL.search(sentence))
