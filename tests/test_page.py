"""Asking on the page, checking what is answered, and what the browser keeps of it."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragbot.verify import read_answers
from ragbot.web.page.strings import word
from tests.pages import (
    ASK_BRIDGE,
    ASK_CORPS,
    BRIDGE,
    CORPS,
    CORPUS,
    FRUIT,
    Oracle,
    Site,
    Visit,
    ask,
    browser,
    engine,
    needs_browser,
    overflowing,
    site,
    visit,
    wait_until,
)

if TYPE_CHECKING:
    pass

__all__ = ["browser", "engine", "site", "visit"]  # fixtures
pytestmark = needs_browser

# --- asking ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "question", "told", "marker"),
    [
        ("zh-TW", ASK_CORPS, CORPS, "出處 1：corps.txt，第 1 段"),
        (
            "zh-CN",
            "华为的军团？",
            "华为3月对外宣告组建医疗卫生军团。",
            "出处 1：corps.txt，第 1 段",
        ),
        ("en-GB", ASK_BRIDGE, BRIDGE, "source 1: bridge.md, paragraph 1"),
    ],
)
def test_a_question_is_answered_in_its_script(
    visit: Visit, locale: str, question: str, told: str, marker: str
) -> None:
    turn = ask(visit(locale), question)
    assert turn.locator(".asked").inner_text() == question
    assert turn.locator(".told").inner_text() == f"{told}1"
    assert turn.locator(".marker").get_attribute("aria-label") == marker
    assert "100%" not in turn.inner_text() and turn.locator(".sources li").count() == 1


def test_an_example_question_is_asked_by_pressing_it_and_others_follow(visit: Visit) -> None:
    page = visit()
    offers = page.locator("#starts .offer")
    offers.first.wait_for()
    assert offers.all_inner_texts() == ["華為組建了什麼軍團？", "蘋果一斤賣多少元？"]
    offers.first.click()
    page.wait_for_selector(".turn[data-state=done]")
    assert page.locator(".next .offer").all_inner_texts() == ["蘋果一斤賣多少元？"]
    page.locator(".next .offer").click()
    page.wait_for_selector(".turn:last-child[data-state=done]")
    assert FRUIT in page.locator(".turn:last-child .told").inner_text()
    assert page.locator(".offer:visible").count() == 0, "all have been asked"


def test_chosen_documents_are_asked_alone_until_all_are_again(visit: Visit) -> None:
    page = visit(width=360)
    page.click("#open-choice")
    page.locator("#choices li").first.wait_for()
    assert page.locator("#choices bdi").all_inner_texts() == sorted(CORPUS)
    assert not overflowing(page)
    page.get_by_label("fruit.txt").check()
    page.get_by_label("evil<b>.txt").check()
    page.click("#choice-done")
    assert page.locator("#starts .offer").all_inner_texts() == ["蘋果一斤賣多少元？"]
    turn = ask(page, ASK_CORPS)
    assert turn.locator(".only").inner_text() == "只問：fruit.txt, evil<b>.txt"
    assert CORPS not in turn.inner_text()
    page.reload()
    page.locator("#chosen", has_text="已選 2 份").wait_for()
    assert turn.locator(".only").is_visible()
    page.click("#open-choice")
    page.click("#all-documents")
    assert page.locator("#chosen").inner_text() == word("all_documents", "zh-Hant")
    turn = ask(page, ASK_CORPS)
    assert CORPS in turn.locator(".told").inner_text() and turn.locator(".only").is_hidden()


def test_an_input_methods_enter_does_not_send(visit: Visit) -> None:
    page = visit()
    box = page.locator("#question")
    box.fill("ㄏㄨㄚˊ")
    page.evaluate(
        """() => {
            const box = document.querySelector("#question");
            const key = (more) => box.dispatchEvent(new KeyboardEvent(
                "keydown", { key: "Enter", bubbles: true, cancelable: true, ...more }));
            box.dispatchEvent(new CompositionEvent("compositionstart"));
            key({ isComposing: true });
            key({});  // a browser that says so by its events only
            box.dispatchEvent(new CompositionEvent("compositionend"));
            key({ keyCode: 229 });  // Safari, whose composition is over by then
        }"""
    )
    assert box.input_value() == "ㄏㄨㄚˊ" and page.locator(".turn").count() == 0
    box.press("Shift+Enter")
    assert box.input_value() == "ㄏㄨㄚˊ\n"
    box.fill(ASK_CORPS)
    box.press("Enter")
    page.wait_for_selector(".turn")
    assert box.input_value() == ""


def test_what_happens_is_shown_and_nothing_moves(visit: Visit, engine: Oracle) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    engine.gate.clear()
    turn = ask(page, "蘋果一斤賣多少元？", state=None)
    turn.locator(".passages li").first.wait_for()
    assert turn.locator(".what").inner_text() == word("reading", "zh-Hant")
    assert "fruit.txt 第 2 段" in turn.locator(".passages").inner_text()
    assert FRUIT in turn.locator(".nearest").inner_text()
    turn.locator(".elapsed", has_text=re.compile("[1-9] 秒")).wait_for()
    page.wait_for_timeout(300)  # the scrolling has come to its end
    places = [turn.locator(".asked"), page.locator("#composer")]
    before = [place.bounding_box() for place in places]
    engine.gate.set()
    page.wait_for_selector(".turn:last-child[data-state=done]")
    page.wait_for_timeout(300)
    assert [place.bounding_box() for place in places] == before


def test_stop_stops_at_once_and_one_can_ask_again(visit: Visit, engine: Oracle, site: Site) -> None:
    page, left = visit(), engine.left
    engine.gate.clear()
    turn = ask(page, ASK_CORPS, state=None)
    turn.locator(".passages li").first.wait_for()
    page.click("#stop")
    assert turn.get_attribute("data-state") == "stopped"
    assert word("stopped_empty", "zh-Hant") in turn.locator(".note").inner_text()
    wait_until(lambda: engine.left == left + 1 and not site.desk.running)
    engine.gate.set()
    turn.get_by_role("button", name="再試一次").click()
    page.wait_for_selector(".turn:last-child[data-state=done]")
    assert page.locator(".turn").count() == 1


def test_visitors_wait_in_turn_and_see_their_place(
    visit: Visit, engine: Oracle, site: Site
) -> None:
    engine.gate.clear()
    pages = []
    for expected in (0, 1, 2):
        pages.append(visit())
        ask(pages[-1], ASK_CORPS, state=None)
        wait_until(lambda count=expected: site.desk.running and site.desk.waiting == count)  # type: ignore[misc]
    pages[1].locator(".what", has_text="你是第 1 位").wait_for()
    pages[2].locator(".what", has_text="你是第 2 位").wait_for()
    engine.gate.set()
    for page in pages:
        page.wait_for_selector(".turn[data-state=done]")


def test_a_closed_tab_stops_its_answer_and_no_one_elses(
    visit: Visit, engine: Oracle, site: Site
) -> None:
    other, page = visit(), visit()
    engine.gate.clear()
    ask(page, ASK_CORPS, state=None)
    page.locator(".passages li").first.wait_for()
    ask(other, "蘋果多少元？", state=None)
    wait_until(lambda: site.desk.waiting == 1)
    left = engine.left
    page.close()
    wait_until(lambda: engine.left == left + 1)
    engine.gate.set()
    other.wait_for_selector(".turn[data-state=done]")


# --- checking --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 360])
def test_a_marker_opens_the_document_at_its_sentence(visit: Visit, width: int) -> None:
    page = visit(width=width)
    ask(page, ASK_CORPS)
    marker = page.locator(".marker")
    marker.click()
    mark = page.locator("#document mark")
    mark.wait_for()
    assert page.evaluate("document.querySelector('mark').innerText").count(CORPS) == 1
    assert page.locator("#document .paragraph").count() == 62
    box, screen = mark.bounding_box(), page.viewport_size
    assert box and screen and 0 <= box["y"] < screen["height"] and box["x"] >= 0
    assert page.evaluate("document.querySelector('#pane').contains(document.activeElement)")
    assert page.locator("#chat").evaluate("one => one.inert") is (width == 360)
    page.keyboard.press("Escape")
    assert not page.locator("#pane").is_visible()
    assert marker.evaluate("one => one === document.activeElement")


def test_the_quote_shows_on_hovering_and_on_focus(visit: Visit) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    page.locator(".marker").hover()
    page.locator("#tip").wait_for()
    assert CORPS in page.locator("#tip").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.mouse.move(5, 5)
    page.locator("#scroll").focus()
    page.keyboard.press("Tab")
    assert page.locator(".marker").evaluate("one => one === document.activeElement")
    assert page.locator("#tip").is_visible()
    assert page.locator(".marker").get_attribute("aria-describedby") == "tip-quote"


def test_a_refusal_names_what_is_nearest_and_a_greeting_nothing(visit: Visit) -> None:
    page = visit("en-GB")
    turn = ask(page, "Who designed the Blue Hill bridge, Haim?")
    assert turn.locator(".verdict").inner_text() == "Not in the documents"
    assert turn.locator(".sources:not(.related)").count() == 0
    assert turn.locator(".related h3").inner_text() == "Nearest, not a proof"
    page.locator("#list [data-do=new]").click()
    greeting = ask(page, "zzz qqq")
    assert greeting.locator(".source").count() == 0


def test_a_long_document_comes_in_parts(visit: Visit) -> None:
    page = visit()
    ask(page, "水壩叫做什麼？")
    page.locator(".marker").click()
    page.locator("#document mark").wait_for()
    paragraphs = page.locator("#document .paragraph")
    first, some = paragraphs.first.get_attribute("data-paragraph"), paragraphs.count()
    assert 100 < some < 600
    page.locator("#earlier").click()
    page.wait_for_function(f"document.querySelectorAll('#document .paragraph').length > {some}")
    assert int(paragraphs.first.get_attribute("data-paragraph") or 0) < int(first or 0)
    some = paragraphs.count()
    page.locator("#later").click()
    page.wait_for_function(f"document.querySelectorAll('#document .paragraph').length > {some}")
    numbers = [
        int(text) for text in page.locator(".paragraph .number > :first-child").all_inner_texts()
    ]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# --- keeping ---------------------------------------------------------------------------------


def test_a_reload_keeps_answers_citations_and_the_open_document(visit: Visit) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    page.locator(".marker").click()
    page.locator("#document mark").wait_for()
    before = page.locator(".turn .answer").inner_text()
    page.reload()
    page.locator("#document mark").wait_for()
    assert page.locator(".turn .answer").inner_text() == before
    page.locator(".marker").click()
    assert CORPS in page.locator("#document mark").inner_text()


def test_conversations_are_switched_deleted_and_brought_back(visit: Visit) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    page.locator("#list [data-do=new]").click()
    assert page.locator("#welcome").is_visible()
    ask(page, "蘋果多少元？")
    assert page.locator(".talk").all_inner_texts() == ["蘋果多少元？", ASK_CORPS]
    page.locator(".talk", has_text="軍團").click()
    page.locator(".turn .told", has_text="軍團").wait_for()
    page.get_by_role("button", name="刪除「蘋果多少元？」").click()
    assert page.locator(".talk").count() == 1
    page.get_by_role("button", name="復原").click()
    page.locator(".turn .told", has_text="31元").wait_for()
    assert page.locator(".talk").count() == 2


def test_an_answer_that_a_reload_cut_off_can_be_asked_for_again(
    visit: Visit, engine: Oracle
) -> None:
    page, left = visit(), engine.left
    engine.gate.clear()
    ask(page, ASK_CORPS, state=None).locator(".passages li").first.wait_for()
    page.reload()
    page.wait_for_selector(".turn[data-state=stopped]")
    wait_until(lambda: engine.left == left + 1)
    engine.gate.set()
    page.get_by_role("button", name="再試一次").click()
    page.wait_for_selector(".turn[data-state=done]")


def test_thirty_conversations_are_kept_and_a_full_store_makes_room(visit: Visit) -> None:
    page = visit()
    page.evaluate(
        """() => {
            for (let n = 0; n < 40; n++) localStorage.setItem("ragbot:talk:old" + n, JSON.stringify(
                { id: "old" + n, title: "old " + n, when: n, turns: [] }));
        }"""
    )
    ask(page, ASK_CORPS)
    assert page.locator(".talk").count() == 30
    assert page.locator(".talk").nth(1).inner_text() == "old 39"
    page.evaluate(
        """() => {
            const filler = { id: "large", title: "large", when: 99, turns: [], filler: "" };
            for (let size = 6000000; size > 1000; size = Math.floor(size / 2)) {
                try {
                    filler.filler += "x".repeat(size);
                    localStorage.setItem("ragbot:talk:large", JSON.stringify(filler));
                } catch { filler.filler = filler.filler.slice(size); }
            }
        }"""
    )
    ask(page, "蘋果多少元？")
    page.reload()
    page.locator(".turn:last-child .told", has_text="31元").wait_for()
    assert page.locator(".talk", has_text="old 12").count() == 0


def test_an_answer_is_copied_with_its_citations(visit: Visit) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    turn = ask(page, ASK_CORPS)
    turn.locator("[data-turn=copy]").click()
    turn.get_by_text("已複製").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{CORPS}[1]\n\n[1] corps.txt，第 1 段: {CORPS}"


def test_without_a_clipboard_it_is_copied_the_old_way(visit: Visit) -> None:
    page = visit()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    turn = ask(page, ASK_CORPS)
    turn.locator("[data-turn=copy]").click()
    turn.get_by_text("已複製").wait_for()


def test_a_conversation_is_downloaded(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    ask(page, "不存在的問題？")
    for form, name in (("markdown", "ragbot.md"), ("json", "ragbot.json")):
        page.locator("#download summary").click()
        with page.expect_download() as download:
            page.locator(f"[data-save={form}]").click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    assert f"## {ASK_CORPS}" in (tmp_path / "ragbot.md").read_text(encoding="utf-8")
    assert [one.abstained for one in read_answers(tmp_path / "ragbot.json")] == [False, True]


def test_thumbs_and_remarks_are_recorded_and_taken_back(visit: Visit, site: Site) -> None:
    page = visit()
    turn = ask(page, ASK_CORPS)
    id = turn.get_attribute("id")

    def row() -> tuple[str, str] | None:
        with sqlite3.connect(site.feedback) as file:
            found: tuple[str, str] | None = file.execute(
                "SELECT verdict, remark FROM ratings WHERE id = ?", [id]
            ).fetchone()
            return found

    turn.locator("[data-turn=down]").click()
    wait_until(lambda: row() == ("down", ""))
    turn.locator(".remark input").fill("少了年份")
    turn.locator(".remark button").click()
    wait_until(lambda: row() == ("down", "少了年份"))
    assert turn.locator("[data-turn=down]").get_attribute("aria-pressed") == "true"
    turn.locator("[data-turn=down]").click()
    wait_until(lambda: row() is None)
