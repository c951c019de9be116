"""Every word ragbot says to a generator, and every fixed sentence it says to a reader.

Instructions come in the reader's language: a small model answers in the language it is spoken to.
They stand before the passages and never vary, so that a server's prefix cache keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragbot.fence import fenced
from ragbot.types import Hit, Language, Message

# Written by the model, read by the bot, never shown: one token-cheap phrase in each language.
NO_ANSWER: dict[Language, str] = {
    "zh-Hant": "資料未提及",
    "zh-Hans": "资料未提及",
    "en": "NOT IN THE SOURCES",
}

# Few words: each further rule made the small model keep the others less. It is not asked for
# markers: asked, it wrote "This is mentioned in source [2]." and other forms of its own.
_SYSTEM: dict[Language, str] = {
    "zh-Hant": (
        # What it is for, and the only place facts may come from.
        "你根據編號的資料回答問題，只用資料裡的事實。"
        # Short: each sentence is checked, and reading is what the user waits for.
        "只用繁體中文，用一兩句話直接回答，要點列全。"
        # Decoration is what it invents first: a year, a first name, a place.
        "只答問到的，不要添加資料裡沒有的年份、數字或名稱。"
        # Otherwise it plays along with a false premise.
        "問題若與資料不符，就說出資料怎麼說。"
        # One agreed phrase, which the bot can tell from an answer.
        f"資料完全沒有相關內容時，只寫：{NO_ANSWER['zh-Hant']}"
    ),
    "zh-Hans": (
        "你根据编号的资料回答问题，只用资料里的事实。"
        "只用简体中文，用一两句话直接回答，要点列全。"
        "只答问到的，不要添加资料里没有的年份、数字或名称。"
        "问题若与资料不符，就说出资料怎么说。"
        f"资料完全没有相关内容时，只写：{NO_ANSWER['zh-Hans']}"
    ),
    "en": (
        "You answer questions from numbered sources, which may be in Chinese, using only the facts"
        " in them. Answer in English, in one or two sentences, straight to the point."
        " Give only what was asked: add no year, number or name that the sources do not give."
        " If the question contradicts the sources, say what the sources say instead."
        f" Only if the sources hold nothing on the subject, write just: {NO_ANSWER['en']}"
    ),
}

# Said after a question in another language than the sources'. The small model reads it well, and
# answers from the sources far better in their language than in the asker's (docs/architecture.md).
_AS_WRITTEN: dict[Language, str] = {
    "zh-Hant": "用中文回答，直接寫出資料裡的原詞。",
    "zh-Hans": "用中文回答，直接写出资料里的原词。",
    "en": "Answer in English, with the words of the sources.",
}

# What was proven in the sources' language, told in the asker's. One example keeps the reply in that
# language; it holds no name, number or date that could be taken for the answer.
_RETELL: dict[Language, tuple[str, str, str, str]] = {
    "zh-Hant": (
        "你用繁體中文寫作。把筆記寫成一句回答問題的繁體中文。",
        "問題：天空是什麼顏色？\n筆記：blue",
        "天空是藍色的。",
        "問題：{}\n筆記：{}",
    ),
    "zh-Hans": (
        "你用简体中文写作。把笔记写成一句回答问题的简体中文。",
        "问题：天空是什么颜色？\n笔记：blue",
        "天空是蓝色的。",
        "问题：{}\n笔记：{}",
    ),
    "en": (
        "You write English. Turn the notes into one English sentence that answers the question.",
        "Question: What colour is the sky?\nNotes: 藍色",
        "The sky is blue.",
        "Question: {}\nNotes: {}",
    ),
}

# A whole sentence is translated: asked to answer with it, the model sums up and loses its points.
_TRANSLATE: dict[Language, str] = {
    "zh-Hant": "把使用者的句子完整譯成繁體中文，一項不漏，只寫譯文。",
    "zh-Hans": "把用户的句子完整译成简体中文，一项不漏，只写译文。",
    "en": "Translate the user's sentence into English, leaving nothing out. Write only that.",
}

QUOTED: dict[Language, str] = {
    "zh-Hant": "原文寫道：「{}」。",
    "zh-Hans": "原文写道：“{}”。",
    "en": "In the words of the source: “{}”.",
}

_QUESTION: dict[Language, str] = {"zh-Hant": "問題", "zh-Hans": "问题", "en": "Question"}
_SOURCES: dict[Language, str] = {"zh-Hant": "資料", "zh-Hans": "资料", "en": "Sources"}

ABSTENTION: dict[Language, str] = {
    "zh-Hant": "這些文件沒有提到這個問題的答案。",
    "zh-Hans": "这些文件没有提到这个问题的答案。",
    "en": "These documents do not contain the answer to this question.",
}

# What the model says instead of the agreed phrase when it has nothing to say.
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

_KEPT_MESSAGES = 4  # of the history; older ones rarely matter and each costs reading time


def refuses(sentence: str) -> bool:
    """Whether a sentence of the model's only says that the sources do not say."""
    return any(phrase in sentence for phrase in NO_ANSWER.values()) or bool(
        _REFUSAL.search(sentence)
    )


def in_words_of_the_source(question: str, source: Language) -> str:
    """The question, with the order to answer it in the sources' language."""
    return f"{question} {_AS_WRITTEN[source]}"


def translation_messages(sentence: str, language: Language) -> list[Message]:
    """The conversation that asks for a sentence in the asker's language."""
    return [Message("system", _TRANSLATE[language]), Message("user", fenced(sentence))]


def retelling_messages(question: str, claim: str, language: Language) -> list[Message]:
    """The conversation that asks for a sentence in the asker's language around a term."""
    order, asked, told, form = _RETELL[language]
    return [
        Message("system", order),
        Message("user", asked),
        Message("assistant", told),
        Message("user", form.format(fenced(question), fenced(claim))),
    ]


def repeats_example(written: str) -> bool:
    """Whether a retelling is the one shown as an example."""
    return any(told.rstrip("。.") in written for _, _, told, _ in _RETELL.values())


def answer_messages(
    question: str,
    language: Language,
    hits: Sequence[Hit],
    history: Sequence[Message],
    room: int,
) -> list[Message]:
    """The conversation that asks for an answer from the hits, which are numbered from 1.

    It is kept within `room` tokens: passages are left out from the last, then turns of the history.
    """
    # Of the talk, too, every word is others': an answer before may quote a document's.
    spoken = [message for message in history if message.role != "system"]
    kept = [Message(m.role, fenced(m.content)) for m in spoken[-_KEPT_MESSAGES:]]
    while True:
        messages = [
            Message("system", _SYSTEM[language]),
            *kept,
            Message("user", _asked(question, language, hits)),
        ]
        if _tokens(messages) <= room or (len(hits) <= 1 and not kept):
            return messages
        if len(hits) > 1:
            hits = hits[:-1]
        else:
            kept = kept[1:]


def _asked(question: str, language: Language, hits: Sequence[Hit]) -> str:
    colon = ":" if language == "en" else "："
    sources = "\n".join(f"[{n}] {fenced(hit.chunk.passage)}" for n, hit in enumerate(hits, 1))
    asks = f"{_QUESTION[language]}{colon}{fenced(question)}"
    return f"{_SOURCES[language]}{colon}\n{sources}\n\n{asks}"


def _tokens(messages: Sequence[Message]) -> float:
    # A bound, not a count: no tokenizer of a current model spends more on such text.
    return sum(
        8 + sum(1.0 if ord(char) > 0x2E7F else 0.4 for char in message.content)
        for message in messages
    )
