from __future__ import annotations

from collections.abc import Sequence

import pytest

from ragbot.citations import Citer, strip_markers
from ragbot.evidence import gather
from ragbot.types import Chunk, Hit, Language

SOURCE_1 = "華為3月對外宣告組建醫療衛生軍團，概念股飆升。自2023年開打的競賽更上一層樓。"
SOURCE_2 = "AI算法做到85%，多半就能發paper；落地臨床往往要95%、99%以上。"
ENGLISH = "The Panthers defense gave up just 308 points. Kuechly led the team with 118 tackles."


def hits(*texts: str) -> list[Hit]:
    return [
        Hit(rank, 1.0, Chunk("doc.txt", rank, 100 * rank, 100 * rank + len(text), text))
        for rank, text in enumerate(texts, start=1)
    ]


def citer(
    *texts: str,
    question: str = "?",
    language: Language = "zh-Hant",
    cosines: Sequence[float] = (),
) -> Citer:
    evidence = gather(hits(*texts))
    return Citer(question, language, evidence, lambda claim: cosines or [0.0] * len(evidence))


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("fact [1].", "fact."),
        ("fact[1][2]", "fact"),
        ("fact [1, 2]", "fact"),
        ("fact [1-3]", "fact"),
        ("fact [1-999999999]", "fact"),
        ("事實【1】", "事實"),
        ("事實［1］", "事實"),
        ("事實[资料2]", "事實"),
        ("事實[資料 2、3]", "事實"),
        ("事實（資料2）", "事實"),
        ("fact (source 3)", "fact"),
        ("fact [Source: 3]", "fact"),
        ("fact [^4^]", "fact"),
        ("fact [0]", "fact"),
        ("fact [99]", "fact"),
        ("none at all", "none at all"),
        ("a year (2023) stays", "a year (2023) stays"),
        ("[sic] stays", "[sic] stays"),
    ],
)
def test_markers_are_taken_out_whatever_their_form(marked: str, plain: str) -> None:
    assert strip_markers(marked) == plain


def test_a_supported_sentence_gets_the_marker_of_its_quotation() -> None:
    shown = citer(SOURCE_1, SOURCE_2)
    assert shown.cite("華為在3月宣告組建醫療衛生軍團。") == "華為在3月宣告組建醫療衛生軍團。[1]"
    assert shown.citations[0].quote == "華為3月對外宣告組建醫療衛生軍團，概念股飆升。"
    assert shown.citations[0].paragraph == 1


def test_the_models_own_marker_does_not_decide() -> None:
    shown = citer(SOURCE_1, SOURCE_2)
    shown.cite("華為在3月宣告組建醫療衛生軍團。[2]")
    assert shown.citations[0].paragraph == 1


def test_what_was_copied_decides_between_two_that_say_it() -> None:
    texts = ("蘋果一斤五元。", "蘋果一斤五元，在市場。")
    for hinted in (0, 1):
        shown = citer(*texts)
        assert shown.cite("蘋果一斤五元。", {hinted}) == "蘋果一斤五元。[1]"
        assert shown.citations[0].paragraph == hinted + 1


def test_what_was_copied_proves_nothing_by_itself() -> None:
    shown = citer(SOURCE_1, SOURCE_2)
    assert shown.cite("烤雞是健康又美味的晚餐。", {0, 1, 2}) is None


def test_what_is_proven_is_cited_when_it_is_told() -> None:
    shown = citer(SOURCE_1, language="en")
    shown.language, shown.retell = "zh-Hant", lambda claim: f"<{claim.rstrip('。')}>。好。"
    proven = shown.prove("华为在3月宣告组建医疗卫生军团。")
    assert proven is not None and shown.citations == []
    claim, proof = proven
    assert claim == "華為在3月宣告組建醫療衛生軍團。"
    assert shown.tell(claim, proof) == "<華為在3月宣告組建醫療衛生軍團>。[1]好。[1]"
    assert shown.markers([*proof, *proof, shown.evidence[1]]) == "[1][2]"
    assert [c.marker for c in shown.citations] == [1, 2]


def test_markers_count_in_order_of_appearance_and_come_again() -> None:
    shown = citer(SOURCE_1, SOURCE_2)
    assert str(shown.cite("AI算法做到85%就能發paper。")).endswith("[1]")
    assert str(shown.cite("華為宣告組建醫療衛生軍團。")).endswith("[2]")
    assert str(shown.cite("AI算法做到85%，多半能發paper。")).endswith("[1]")
    assert [c.paragraph for c in shown.citations] == [2, 1]


@pytest.mark.parametrize(
    "claim",
    [
        "烤雞是健康又美味的晚餐。",
        "華為在4月宣告組建醫療衛生軍團。",  # the number is wrong
        "AI算法做到90%，多半就能發paper。",
        "華為醫療衛生軍團的總部設在深圳龍崗。",
        "",
        "[1]",
    ],
)
def test_what_nothing_supports_is_not_shown(claim: str) -> None:
    shown = citer(SOURCE_1, SOURCE_2, question="華為醫療衛生軍團怎麼了？")
    assert shown.cite(claim) is None
    assert shown.citations == []


def test_the_part_that_answers_must_be_in_the_source_not_only_the_question_repeated() -> None:
    shown = citer(SOURCE_1, question="華為醫療衛生軍團的總部設在哪裡？")
    assert shown.cite("華為醫療衛生軍團的總部設在新加坡。") is None


@pytest.mark.parametrize(
    ("claim", "proven"),
    [
        ("蘋果一斤五元。", True),
        ("西瓜一斤五元。", False),
        ("這家店的蘋果一斤賣五元。", True),
        ("作者說蘋果一斤五元。", True),
    ],
)
def test_a_fact_about_one_thing_proves_none_about_another(claim: str, proven: bool) -> None:
    shown = citer("這家店的蘋果一斤五元。", "香蕉一斤三元。", question="西瓜多少錢一斤？")
    assert (shown.cite(claim) is not None) == proven


def test_an_answer_is_shown_in_the_readers_script_its_quotation_as_written() -> None:
    shown = citer(SOURCE_1, language="zh-Hans")
    assert shown.cite("華為在3月宣告組建醫療衛生軍團。") == "华为在3月宣告组建医疗卫生军团。[1]"
    assert "華為" in shown.citations[0].quote


def test_english_within_english() -> None:
    shown = citer(ENGLISH, question="How many tackles did Kuechly make?", language="en")
    assert shown.cite("Luke Kuechly made 118 tackles.") is not None
    assert shown.citations[0].quote == "Kuechly led the team with 118 tackles."
    assert shown.cite("Kuechly made 308 tackles.") is None


def test_across_languages_meaning_decides_and_numbers_must_still_match() -> None:
    near = citer(SOURCE_2, language="en", cosines=[0.9])
    assert near.cite("85% is enough for a paper.") is not None
    assert near.cite("75% is enough for a paper.") is None
    far = citer(SOURCE_2, language="en", cosines=[0.7])
    assert far.cite("85% is enough for a paper.") is None


def test_a_month_in_words_is_a_number_too() -> None:
    shown = citer(SOURCE_1, language="en", cosines=[0.9, 0.9])
    assert shown.cite("Huawei announced it in March.") is not None
    assert shown.citations[0].start == 100
    assert shown.cite("Huawei announced it in May.") is None


def test_a_sentence_that_joins_two_facts_cites_both() -> None:
    shown = citer("兩把重劍中，頭一把劍叫結盟。", "第二把劍叫聚焦，是向內收攏。")
    assert str(shown.cite("頭一把劍叫結盟，第二把劍叫聚焦。")).endswith("[1][2]")


def test_no_evidence_no_sentence() -> None:
    assert citer().cite("任何話。") is None


def test_a_heading_without_a_word_of_its_own_is_no_sentence() -> None:
    assert citer("Who did it?", "Huawei did it.").cite("Sources: [1], [2]") is None


@pytest.mark.parametrize(
    ("question", "claim", "source", "said"),
    [
        (
            "Which Tencent system kept the idea alive?",
            "The Tencent system kept the idea alive.",
            "The Tencent system Miying kept the idea alive.",
            False,
        ),
        (
            "Which Tencent system kept the idea alive?",
            "Miying kept the idea alive.",
            "The Tencent system Miying kept the idea alive.",
            True,
        ),
        (
            "向目擊者取證屬於委員會的什麼？",
            "向目擊者取證屬於委員會。",
            "向目擊者取證屬於委員會的主要職責。",
            False,
        ),
        (
            "向目擊者取證屬於委員會的職責嗎？",
            "向目擊者取證屬於委員會的職責。",
            "向目擊者取證屬於委員會的主要職責。",
            True,
        ),
        ("Did Huawei found a corps?", "Huawei did found a corps.", "Huawei founded a corps.", True),
        ("Did Huawei or Tencent found it?", "Huawei.", "Huawei founded it.", True),
        ("是華為還是騰訊創辦的？", "華為創辦的。", "華為創辦了它。", True),
    ],
)
def test_the_question_said_again_is_no_answer(
    question: str, claim: str, source: str, said: bool
) -> None:
    assert (citer(source, question=question).cite(claim) is not None) == said


@pytest.mark.parametrize(
    ("question", "claim", "source", "said"),
    [
        # Asked how many, an answer has a number; asked when, it has one or tells a time.
        ("軍團有多少人？", "軍團有很多人參加。", "軍團有很多人參加。", False),
        ("軍團有多少人？", "軍團有八百人參加。", "軍團有八百人參加。", True),
        ("橋在哪一年建成？", "橋建成時有很多人來看。", "橋建成時有很多人來看。", False),
        ("橋在哪一年建成？", "橋在2016年建成。", "橋在2016年建成。", True),
        ("How many came?", "A large crowd came.", "A large crowd came.", False),
        ("How many came?", "Twelve came.", "Twelve guests came.", True),
        ("In which year did it open?", "It opened to applause.", "It opened to applause.", False),
        ("橋什麼時候建成？", "橋是工人建成的。", "橋是工人建成的。", False),
        ("橋什麼時候建成？", "橋在戰爭前夕建成。", "橋在戰爭前夕建成。", True),
        ("When did it open?", "It opened with a party.", "It opened with a party.", False),
        ("When did it open?", "It opened during the war.", "It opened during the war.", True),
        ("幾乎沒人過橋嗎？", "幾乎沒人過橋。", "幾乎沒人過橋。", True),
        ("這幾年誰看好橋？", "商會看好這座橋。", "這幾年商會看好這座橋。", True),
        ("橋通向哪幾座城？", "橋通向海法和雅法。", "橋通向海法和雅法。", True),
        ("橋上有多少人？", "這一座橋上人很多。", "這一座橋上人很多。", False),
        ("幾內亞的首都是哪裡？", "首都是柯那克里。", "幾內亞的首都是柯那克里。", True),
        ("How long-term is it?", "It is permanent.", "The plan is permanent.", True),
        # The question once more is no answer, closed or not.
        ("橋建成了嗎？", "橋建成了嗎？", "橋建成了。", False),
        ("Is it made to or from steel?", "Is it made from steel?", "It is made from steel.", False),
    ],
)
def test_what_was_asked_for_is_told(question: str, claim: str, source: str, said: bool) -> None:
    assert (citer(source, question=question).cite(claim) is not None) == said


@pytest.mark.parametrize(
    ("question", "written", "proven"),
    [
        ("CardioMind是不是北京大學做的？", "CardioMind是北京大學的醫院做的。", False),
        ("CardioMind是不是復旦大學做的？", "CardioMind是復旦大學的醫院做的。", True),
        (
            "CardioMind是不是北京大學做的？",
            "CardioMind不是北京大學做的，是復旦大學的醫院做的。",
            True,
        ),
    ],
)
def test_a_name_of_the_questions_own_is_given_only_where_a_passage_holds_it(
    question: str, written: str, proven: bool
) -> None:
    evidence = gather(hits("復旦大學的醫院做的是CardioMind。"))
    citer = Citer(question, "zh-Hant", evidence, lambda claim: [0.0] * len(evidence))
    assert bool(citer.prove(written)) is proven


def test_a_question_in_other_words_is_answered_by_what_was_copied_with_all_that_is_new() -> None:
    source = "衛健委印發的《參考指引》，迄今已列出84個人工智能的應用場景。"
    question, claim = "官方指引總共整理出幾個用途？", "官方指引總共整理出84個用途。"
    asked = citer(source, question=question)
    assert asked.prove(claim, frozenset({0})), "a number is all that is new"
    assert not asked.prove(claim), "nothing says that it is about these"
    assert not asked.prove("官方指引總共整理出85個用途。", frozenset({0}))


@pytest.mark.parametrize(
    ("claim", "proven"),
    [
        ("騰訊覓影 imaging系統撐著AI醫療。", False),  # the question's word, no source's
        ("騰訊覓影撐著AI醫療。", True),
        ("騰訊覓影的系統叫 medical cloud。", True),
    ],
)
def test_an_english_word_of_a_chinese_claim_stands_in_its_source(claim: str, proven: bool) -> None:
    source = "AI醫療就靠騰訊覓影一類的系統撐著，系統叫 medical cloud。"
    asked = citer(source, question="Which Tencent imaging system kept AI medicine alive?")
    assert bool(asked.prove(claim, frozenset({0}))) is proven
