from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ragbot.index import Candidate, Index
from ragbot.retriever import Retriever, fused, is_near
from ragbot.types import Chunk, Hit
from tests.fakes import FakeEncoder

CHUNK = Chunk("d", 1, 0, 1, "x")
TEXTS = ("華為組建醫療衛生軍團。", "百度收購了一家公司。", "今天天氣晴朗。")


def test_the_best_passage_comes_first_with_ranks(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    hits = Retriever(make_index(*TEXTS), encoder).search("华为的军团", limit=2)
    assert [hit.rank for hit in hits] == [1, 2]
    assert hits[0].text == TEXTS[0]
    assert hits[0].score > hits[1].score


def test_a_result_depends_on_its_question_alone(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    retriever = Retriever(make_index(*TEXTS), encoder)
    one, other = "百度收購", "天氣"
    first = [retriever.search(one, limit=3), retriever.search(other, limit=1)]
    again = [retriever.search(other, limit=1), retriever.search(one, limit=3)]
    assert first == again[::-1]


def test_without_a_shared_word_dense_alone_ranks() -> None:
    near, far = Candidate(0, CHUNK, 0.9, 0.9, 0.0), Candidate(1, CHUNK, 0.8, 0.8, 0.0)
    assert fused(near) == 0.9 and fused(far) == 0.8


def test_words_in_common_help_but_do_not_overrule() -> None:
    assert fused(Candidate(0, CHUNK, 0.9, 0.9, 0.5)) > fused(Candidate(1, CHUNK, 0.9, 0.9, 0.0))
    assert fused(Candidate(0, CHUNK, 0.95, 0.95, 0.0)) > fused(Candidate(1, CHUNK, 0.8, 0.8, 0.9))


def test_more_phrasings_count_by_their_best(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    retriever = Retriever(make_index(*TEXTS), encoder)
    plain = {hit.text: hit.score for hit in retriever.search("華為的軍團", limit=3)}
    other = {hit.text: hit.score for hit in retriever.search(TEXTS[2], limit=3)}
    both = retriever.search("華為的軍團", limit=3, phrasings=[TEXTS[2], "完全無關"])
    assert both[0].text == TEXTS[2]
    for hit in both[:2]:
        assert hit.score == max(plain[hit.text], other[hit.text])
    assert [hit.rank for hit in both] == [1, 2, 3]


def test_the_reranker_is_asked_the_question_itself(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    asked = []

    def rerank(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        asked.append(question)
        return hits

    retriever = Retriever(make_index(*TEXTS), encoder, rerank=rerank)
    retriever.search("Huawei", limit=1, phrasings=["華為"])
    assert asked == ["Huawei"]


def test_a_reranker_has_the_last_word(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    def backwards(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return list(reversed(hits))

    index = make_index(*TEXTS)
    usual = Retriever(index, encoder).search("華為", limit=3)
    turned = Retriever(index, encoder, rerank=backwards).search("華為", limit=3)
    assert [hit.text for hit in turned] == [hit.text for hit in usual][::-1]


def test_one_reranker_after_another(make_index: Callable[..., Index], encoder: FakeEncoder) -> None:
    def backwards(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return list(reversed(hits))

    def second_first(question: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return [hits[1], hits[0], *hits[2:]]

    plain = Retriever(make_index(*TEXTS), encoder)
    a, b, c = (hit.text for hit in plain.search("華為", limit=3))
    both = plain.then(backwards).then(second_first)
    assert [hit.text for hit in both.search("華為", limit=3)] == [b, c, a]
    assert [hit.text for hit in plain.search("華為", limit=3)] == [a, b, c]


def test_asking_for_more_than_there_is(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    assert len(Retriever(make_index(*TEXTS), encoder).search("華為", limit=50)) == 3


def test_the_sentences_that_bear_on_a_question_come_best_first(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    index = make_index("開頭。百度收購了公司。\n華為組建軍團。華為投資醫療。別的。", "天氣晴朗。")
    retriever = Retriever(index, encoder)
    hits = retriever.search("華為", limit=3)
    found = retriever.ranked(["華為組建軍團"], hits)
    assert found[0].text == "華為組建軍團。" and len(found) == 6
    assert {hit.text for hit in retriever.ranked(["華為組建投資"], hits)[:2]} == {
        "華為組建軍團。",
        "華為投資醫療。",
    }
    for hit in found[:2]:
        assert index.documents[hit.doc].text[hit.start : hit.end] == hit.text
        assert hit.paragraph == 2
    assert retriever.ranked(["華為"], []) == []


def test_chinese_does_not_crowd_out_english(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    """They score higher than English ones of the same worth. The scores themselves stay."""
    chinese, english = "鐵橋有多長", "How long is the iron bridge"
    retriever = Retriever(make_index(chinese, english), encoder)

    def order(*queries: str) -> list[str]:
        hits = retriever.search(queries[0], limit=2, phrasings=queries[1:])
        ranked = retriever.ranked(queries, hits)
        assert [hit.text for hit in ranked] == [hit.text for hit in hits]
        return [hit.text for hit in hits]

    assert order(chinese, english) == order(english, chinese) == [english, chinese]
    assert order(chinese, "What is the weather like") == [chinese, english]
    assert order(chinese) == [chinese, english]
    first, second = retriever.search(chinese, limit=2, phrasings=[english])
    assert first.score < second.score


def test_what_is_near_depends_on_the_language_of_the_passage() -> None:
    """English passages score lower, those that answer as well as the others."""

    def near(score: float, text: str) -> bool:
        return is_near(Hit(1, score, replace(CHUNK, text=text)))

    assert (
        near(0.86, "鐵橋")
        and not near(0.83, "鐵橋")
        and not near(0.83, "鐵橋是 the iron one 的譯名")
    )
    assert near(0.83, "the iron bridge") and not near(0.78, "the iron bridge")


def test_a_sentence_that_asks_goes_with_the_one_that_may_answer(
    make_index: Callable[..., Index], encoder: FakeEncoder
) -> None:
    text = "橋有多長？430米。橋有多寬？多高？寬6米。還有別的嗎？"
    retriever = Retriever(make_index(text, "只是問嗎？"), encoder)
    found = {part.text for part in retriever.ranked(["橋"], retriever.search("橋", limit=9))}
    assert found == {"橋有多長？430米。", "橋有多寬？多高？寬6米。", "只是問嗎？"}
