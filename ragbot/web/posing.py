"""A question about a passage: what the generator is told, and what becomes of its reply.

Whether the documents answer the question is not known here; that it could be understood by somebody
who has read none of them is.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence

from ragbot.engines import Engine
from ragbot.errors import ConfigError
from ragbot.fence import checked, fenced
from ragbot.generator import Generator
from ragbot.prompts import TEXT, Written, written
from ragbot.text import across, detect_language, fold, to_language
from ragbot.types import Chunk, Language, Message

# --- what the generator is told --------------------------------------------------------------

# It sees one passage, its reader none: so the examples name what they ask about. As everywhere,
# they tell of no document, and are in Simplified Chinese or English.
_ORDER: dict[Written, str] = {
    "zh": (
        "读文章，出一道能用其中一句话回答的题。题目里写明所问的人或事物的名字，"
        "没读过文章的人也看得懂。只写题目。"
    ),
    "en": (
        "Read the text and write one question that a single sentence of it answers. Name the person"
        " or thing that is asked about, so that those who have not read it understand. Write only"
        " the question."
    ),
}
_EXAMPLES: dict[Written, Sequence[tuple[str, str]]] = {
    "zh": (
        (
            "青山桥长430米，宽6米，2016年建成。它的设计师哈伊姆来自海法，此前造过两座音乐厅。",
            "青山桥的设计师哈伊姆来自哪里？",
        ),
        ("她六岁学会了钢琴，后来又学了小提琴和长笛。小林的老师一直是父亲。", "小林会哪些乐器？"),
        (
            "山货书店周末关门，因为老板娘那两天去学校教书，教的是画画。",
            "山货书店为什么周末关门？",
        ),
    ),
    "en": (
        (
            "The Green Hill bridge is 430 metres long and was finished in 2016. Its designer, Haim,"
            " comes from Haifa and had built two concert halls before.",
            "Where does Haim, the designer of the Green Hill bridge, come from?",
        ),
        (
            "She learnt the piano at six and later took up the violin and the flute. Lin was always"
            " taught by her father.",
            "Which instruments does Lin play?",
        ),
        (
            "The Hazel bookshop is closed at weekends, since its owner teaches drawing then.",
            "Why is the Hazel bookshop closed at weekends?",
        ),
    ),
}

# Characters, the question mark not counted.
_LENGTHS: dict[Written, tuple[int, int]] = {"zh": (6, 50), "en": (15, 140)}
_MARKS: dict[Written, str] = {"zh": "？", "en": "?"}
_MAX_TOKENS = 80


def _form(language: Written) -> str:
    """The grammar (GBNF) of a question: one line that ends with its mark."""
    least, most = _LENGTHS[language]
    return f'root ::= [^\\n?？<>{{}}|]{{{least},{most}}} "{_MARKS[language]}"'


def _messages(passage: str, language: Written) -> list[Message]:
    messages = [Message("system", _ORDER[language])]
    for text, question in _EXAMPLES[language]:
        messages.append(Message("user", TEXT[language] + text))
        messages.append(Message("assistant", question))
    return [*messages, Message("user", TEXT[language] + fenced(passage))]


# --- what a question must be -----------------------------------------------------------------

# Words that point at what the asker does not have before him. Of folded text, so Simplified.
_POINTING = re.compile(
    r"(?<![日基文样版课根标])本[文章段篇节书]|(?<![应活因如])[这该此那][个些位种篇段本一项次]"
    r"|[文段题]中|文章|原文|短文|[上下前]文(?!化)|段落|材料[中里]|[上前下]述|所述|所提到|(?<!的)作者"
    r"|(?<![\d岁%人元个年月天度])以[上下](?:哪|的|内容|描述|说法)|(?<![其吉])[他她它]|^[其这该此那]"
    r"|\b(?:this|these|those|he|she|they|him|them|hers|theirs|aforementioned)\b"
    r"|\bthe (?:\w+ )?(?:passage|paragraph|excerpt|article|text|document|section|author(?! of))s?\b"
    r"|\bthe (?:above|following)\b|\b(?:mentioned|listed|described|discussed|stated)(?: \w+)?\?"
    r"|\bit\b(?! (?:important|possible|necessary|hard|difficult|easy|better|common|takes?)\b)"
    r"|^(?:\w+ ){0,3}(?:his|her|its|their)\b|^that\b"
)
_MARKUP = re.compile(r"[<>{}|`\\\[\]*_#]|://|www\.")
_TOLD = [
    part.strip()
    for order in _ORDER.values()
    for part in re.split(r"[，。,.]", fold(order).text)
    if len(part.strip()) >= 6
]


def stands_alone(question: str, language: Language) -> bool:
    """Whether a question, in that language, is understood by who sees nothing else."""
    least, most = _LENGTHS[written(language)]
    plain = fold(question).text
    try:
        askable = checked(question) == question == fenced(question)
    except ConfigError:
        return False
    return (
        askable
        and least < len(question) <= most + 1
        and plain.endswith("?")
        and plain.count("?") == 1
        and not across(detect_language(question, language), language)
        and not _POINTING.search(plain)
        and not _MARKUP.search(question)
        and not any(part in plain for part in _TOLD)
    )


# --- asking for one --------------------------------------------------------------------------


def phrasings(
    engine: Engine, passage: Chunk, cancel: threading.Event
) -> Iterator[tuple[str, Language]]:
    """A new question about a passage, in each language and script; none where the generator writes
    none that stands alone, and no more once `cancel` is set. Raises ModelError."""
    source = detect_language(passage.text)
    said = written(source)
    reply = engine.stream(
        _messages(to_language(passage.passage, "zh-Hans"), said),
        max_tokens=_MAX_TOKENS,
        cancel=cancel,
        form=_form(said),
    )
    question = _tidy("".join(reply), said)
    if cancel.is_set() or not stands_alone(question, source):
        return
    other: Language = "zh-Hans" if source == "en" else "en"
    translated = Generator(lambda: engine, _MAX_TOKENS, cancel).translated_question(question, other)
    for text in (question, _tidy(translated, written(other))):
        languages: Sequence[Language] = ("zh-Hans", "zh-Hant")
        for language in ("en",) if detect_language(text) == "en" else languages:
            if stands_alone(phrased := to_language(text, language), language):
                yield phrased, language


def _tidy(text: str, language: Written) -> str:
    """The first line, its question mark as the language has it."""
    line = " ".join(text.strip().split("\n")[0].split())
    return line[:-1] + _MARKS[language] if line.endswith(("?", "？")) else line
