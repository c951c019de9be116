"""Every word ragbot says to a generator.

Each prompt is instructions, examples, then what is asked, last and alone in its message: the
beginning never varies, so that an engine reads it once. What the examples tell is of no document
and no known question. Instructions come in the language that is to be written: a small model
answers in the language it is spoken to, and reads Simplified Chinese best (of ten Traditional
questions, 8 were right so, 5 as written, in two thirds of the time), so that there is no
Traditional prompt. The reader's script is restored afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ragbot.fence import fenced
from ragbot.types import Language, Message

Written = Literal["zh", "en"]
"""The languages that a generator is spoken to in."""


def written(language: Language) -> Written:
    """The language of the prompts for a reader's language."""
    return "en" if language == "en" else "zh"


# --- reading: the sentence that answers, then the answer -----------------------------------------

# Labels are shared by the examples, the grammar and the parser.
TEXT: dict[Written, str] = {"zh": "文章：", "en": "Text: "}
QUESTION: dict[Written, str] = {"zh": "问题：", "en": "Question: "}
SENTENCE: dict[Written, str] = {"zh": "原句：", "en": "Sentence: "}
ANSWER: dict[Written, str] = {"zh": "答案：", "en": "Answer: "}
NONE: dict[Written, str] = {"zh": "无", "en": "none"}

# Copied first: what is copied can be held against the text, and an answer after it is right more
# often (10 of 12 against 8). The likelihood of "none" at its first word tells best of all whether
# the text holds the answer (docs/architecture.md).
_READ: dict[Written, str] = {
    "zh": (
        "先抄写文章里能回答问题的那一句，再根据它用一句完整的中文回答，要点列全。"
        f"文章没有答案时，写：{NONE['zh']}"
    ),
    "en": (
        "First copy the one sentence of the text that answers the question, then answer from it in"
        " one full English sentence, leaving out no point."
        f" If the text does not answer it, write: {NONE['en']}"
    ),
}

# A fact; something near that is not said; a list, asked for in the other language, so that it stays
# in the text's; a false premise.
_READINGS: dict[Written, str] = {
    "zh": """
文章：青山桥长430米，宽6米，2016年建成。它的设计师哈伊姆来自海法，此前造过两座音乐厅。桥上每次最多容许800人通过。
问题：桥上一次能走多少人？
原句：桥上每次最多容许800人通过。
答案：桥上一次最多能走800人。

文章：书店在二楼，周末关门，老板娘姓陈。手机店在三楼，卖手机和电脑。
问题：书店是哪一年开的？
原句：无
答案：无

文章：小林六岁学会了钢琴，后来又学了小提琴和长笛，老师是父亲。她的哥哥是画家。
问题：Which instruments does Lin play?
原句：小林六岁学会了钢琴，后来又学了小提琴和长笛，老师是父亲。
答案：小林会钢琴、小提琴和长笛。

文章：小林的哥哥是画家，因为喜欢安静，一直住在海边。
问题：她哥哥为什么搬到山上？
原句：小林的哥哥是画家，因为喜欢安静，一直住在海边。
答案：她哥哥没有搬到山上，他因为喜欢安静，一直住在海边。
""",
    "en": """
Text: The Green Hill bridge is 430 metres long and 6 metres wide; it was finished in 2016. Its designer, Haim, comes from Haifa and had built two concert halls before. At most 800 people may cross at a time.
Question: How many people can be on the bridge at once?
Sentence: At most 800 people may cross at a time.
Answer: At most 800 people can be on the bridge at once.

Text: The bookshop is on the second floor, closes at weekends and is run by Mrs Chen. The phone shop is on the third floor and sells phones and computers.
Question: In which year did the bookshop open?
Sentence: none
Answer: none

Text: Lin learnt the piano at six and later took up the violin and the flute, taught by her father. Her brother is a painter.
Question: 林会哪些乐器？
Sentence: Lin learnt the piano at six and later took up the violin and the flute, taught by her father.
Answer: Lin plays the piano, the violin and the flute.

Text: Lin's brother is a painter who has always lived by the sea because he likes the quiet.
Question: Why did her brother move to the hills?
Sentence: Lin's brother is a painter who has always lived by the sea because he likes the quiet.
Answer: Her brother did not move to the hills; he has always lived by the sea because he likes the quiet.
""",
}

_TELLING = 10  # characters of an instruction that are no accident

# Bounds in characters: a paragraph without a full stop would otherwise be copied to its end.
_COPIED: dict[Written, int] = {"zh": 90, "en": 280}
_ANSWERED: dict[Written, int] = {"zh": 120, "en": 350}


def reading_form(language: Written, copies: int = 1) -> str:
    """The grammar (GBNF) of a reading: each label has a line of its own. Where several things are
    asked for, so many sentences are copied: left to itself the model stops at the first."""
    copied = f'"{SENTENCE[language]}" [^\\n]{{1,{_COPIED[language]}}} "\\n"'
    answer = f'"{ANSWER[language]}" [^\\n]{{1,{_ANSWERED[language]}}}'
    return f"root ::= ({copied}){{{copies}}} {answer}"


def reading_messages(question: str, texts: Sequence[str], language: Written) -> list[Message]:
    """Asks for the sentence of the texts, which are in `language`, that answers, and the answer."""
    return _conversation(_READ[language], _READINGS[language], _asked(texts, question, language), 2)


def repeats_instructions(text: str) -> bool:
    """Whether a reply gives away what the model was told, which no answer does."""
    told = [part for order in _READ.values() for part in re.split(r"(?<=[。.，,：:])", order)]
    return any(part.strip(" 。.，,：:") in text for part in told if len(part) >= _TELLING)


def _asked(texts: Sequence[str], question: str, language: Written) -> str:
    # One line each, which begins with our label: none can begin with one of its own.
    lines = "".join(f"{TEXT[language]}{fenced(text)}\n" for text in texts)
    return f"{lines}{QUESTION[language]}{fenced(question)}"


# --- the question, for searching ---------------------------------------------------------------

# A question in the other language finds far more: recall@1 over the article 0.36 before, 0.73 with.
_ASK_IN: dict[Written, str] = {
    "zh": "把用户的问题译成简体中文，仍是问题，不回答。只写译文。人名、地名用通行的中文译名。",
    "en": (
        "Translate the question into English; it stays a question, do not answer it. Write only that,"
        " with the usual English names."
    ),
}
_QUESTIONS: dict[Written, str] = {
    "zh": """
Who wrote the play "Tea House"?
话剧《茶馆》是谁写的？

How many people visited the Palace Museum in 2019?
2019年有多少人参观了故宫博物院？

Which two rivers meet in the middle of the town?
哪两条河在镇中心汇合？

Why did the old mill stop working back in the sixties?
老磨坊在六十年代为什么停工了？

What is the steep lane behind the school known as?
学校后面那条陡巷叫什么？

What does the mayor want to change first?
镇长想先改变什么？
""",
    "en": """
话剧《茶馆》是谁写的？
Who wrote the play "Tea House"?

2019年有多少人參觀了故宮博物院？
How many people visited the Palace Museum in 2019?

哪两条河在镇中心汇合？
Which two rivers meet in the middle of the town?

老磨坊在六十年代为什么停工了？
Why did the old mill stop working in the sixties?

学校后面那条陡巷叫什么？
What is the steep lane behind the school known as?

镇长想先改变什么？
What does the mayor want to change first?
""",
}


def question_translation_messages(question: str, language: Written) -> list[Message]:
    """Asks for a question in the other language."""
    return _conversation(_ASK_IN[language], _QUESTIONS[language], fenced(question))


# One example changes the subject, so that not every question is taken for a follow-up.
_REWRITE: dict[Written, str] = {
    "zh": "根据对话，把最后的问题改写成不看对话也能明白的问题。只写问题。已经明白的，照抄。",
    "en": (
        "Rewrite the last question so that it is understood without the conversation. Write only"
        " the question. If it is clear already, copy it."
    ),
}
_REWRITES: dict[Written, str] = {
    "zh": """
问：青山桥是谁设计的？
答：是哈伊姆设计的。
最后的问题：那他是哪里人？
哈伊姆是哪里人？

问：小林会钢琴吗？
答：会，她还会另外两种乐器。
最后的问题：另外两种呢？
小林会的另外两种乐器是什么？

问：书店在几楼？
答：在二楼。
最后的问题：青山桥有多长？
青山桥有多长？

问：谁住在海边？
答：小林的哥哥。
最后的问题：那小陈的那个呢？
小陈的哥哥住在哪里？
""",
    "en": """
Q: Who designed the bridge?
A: Haim did.
Last question: And where is he from?
Where is Haim from?

Q: Does Lin play the piano?
A: Yes, and two other instruments.
Last question: Which ones?
Which two other instruments does Lin play?

Q: Where is the bookshop?
A: Upstairs.
Last question: How long is the bridge?
How long is the bridge?

Q: Who lives by the sea?
A: Lin's brother.
Last question: And Chen's?
Where does Chen's brother live?
""",
}
_TALK: dict[Written, tuple[str, str, str]] = {
    "zh": ("问：", "答：", "最后的问题："),
    "en": ("Q: ", "A: ", "Last question: "),
}
_KEPT_MESSAGES, _KEPT_CHARACTERS = 4, 300  # older ones rarely matter, and reading costs time


def rewriting_messages(
    question: str, history: Sequence[Message], language: Written
) -> list[Message]:
    """Asks for a follow-up as a question that stands alone."""
    user, assistant, last = _TALK[language]
    # Of the talk, too, every word is others': an answer before may quote a document's.
    talk = [
        f"{user if message.role == 'user' else assistant}"
        f"{fenced(message.content)[:_KEPT_CHARACTERS]}"
        for message in history[-_KEPT_MESSAGES:]
        if message.role != "system"
    ]
    asked = "\n".join([*talk, f"{last}{fenced(question)}"])
    return _conversation(_REWRITE[language], _REWRITES[language], asked)


# --- retelling: what was proven in the sources' language, told in the asker's ------------------

# One example keeps the reply in that language; it holds no name, number or date that could be
# taken for the answer.
_RETELL: dict[Written, str] = {
    "zh": "你用简体中文写作。把笔记写成一句回答问题的简体中文。",
    "en": "You write English. Turn the notes into one English sentence that answers the question.",
}
_TOLD: dict[Written, str] = {"zh": "天空是蓝色的。", "en": "The sky is blue."}
_RETOLD: dict[Written, str] = {
    "zh": f"问题：天空是什么颜色？\n笔记：blue\n{_TOLD['zh']}",
    "en": f"Question: What colour is the sky?\nNotes: 蓝色\n{_TOLD['en']}",
}
_NOTES: dict[Written, str] = {"zh": "笔记：", "en": "Notes: "}

# A whole sentence is translated: asked to answer with it, the model sums up and loses its points.
# With three examples the answer's words are in the translation of 17 of 30 sentences, without in 15.
# The order is in Chinese both ways: told in English, it leaves more of the Chinese as it is.
_TRANSLATE: dict[Written, str] = {
    "zh": "把用户的句子完整译成简体中文，一项不漏，只写译文。",
    "en": "把用户的句子完整译成英文，一项不漏，只写译文。",
}
_TRANSLATIONS = (
    (
        "桥上每次最多容许800人通过，比原先的木桥多了近一倍；可是到了周末，仍有不少人要在桥头等上半个钟头。",
        "At most 800 people may cross the bridge at a time, almost twice as many as on the old wooden"
        " bridge; at weekends, however, many still have to wait half an hour at its end.",
    ),
    (
        "第二位叫「阿海」，他开的小店生意不温不火，过了好几年才还清欠款。",
        'The second is called "Ah Hai"; business in his small shop was lukewarm, and it took him years'
        " to pay off his debts.",
    ),
    (
        "例子有：市立图书馆和青山小学合办的「夜读」，以及书商林家出钱修的三座凉亭。",
        'Examples are the "Night Reading" held jointly by the city library and Green Hill Primary'
        " School, and the three pavilions paid for by the Lins, who are booksellers.",
    ),
)


def translation_messages(sentence: str, language: Written) -> list[Message]:
    """Asks for a sentence in another language."""
    pairs = [pair if language == "en" else pair[::-1] for pair in _TRANSLATIONS]
    examples = "\n\n".join("\n".join(pair) for pair in pairs)
    return _conversation(_TRANSLATE[language], examples, fenced(sentence))


def retelling_messages(question: str, claim: str, language: Written) -> list[Message]:
    """Asks for a sentence in the asker's language around a term."""
    asked = f"{QUESTION[language]}{fenced(question)}\n{_NOTES[language]}{fenced(claim)}"
    return _conversation(_RETELL[language], _RETOLD[language], asked)


def repeats_example(text: str) -> bool:
    """Whether a retelling is one shown as an example."""
    shown = (*_TOLD.values(), *(one for pair in _TRANSLATIONS for one in pair))
    return any(told.rstrip("。.") in text for told in shown)


def _conversation(order: str, examples: str, asked: str, answered: int = 1) -> list[Message]:
    """Instructions, examples, what is asked. Examples are parted by blank lines; the last
    `answered` lines of each are the reply."""
    messages = [Message("system", order)]
    for example in filter(None, examples.strip().split("\n\n")):
        lines = example.split("\n")
        messages.append(Message("user", "\n".join(lines[:-answered])))
        messages.append(Message("assistant", "\n".join(lines[-answered:])))
    return [*messages, Message("user", asked)]
