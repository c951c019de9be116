"""How the page looks, in which words it speaks, and how it is used without eyes or a mouse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ragbot.web.page.strings import LANGUAGES, WORDS, word
from tests.pages import (
    ASK_BRIDGE,
    ASK_CORPS,
    Oracle,
    Visit,
    ask,
    browser,
    engine,
    needs_browser,
    overflowing,
    site,
    visit,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "engine", "site", "visit"]  # fixtures
pytestmark = needs_browser

# --- languages and looks ---------------------------------------------------------------------


def words_of(language: str) -> set[str]:
    others = [one for one in LANGUAGES if one != language]
    return {
        row[language]  # type: ignore[index]
        for row in WORDS.values()
        if "{" not in row[language] and row[language] not in [row[one] for one in others]  # type: ignore[index]
    }


@pytest.mark.parametrize(
    ("locale", "language"), [("zh-HK", "zh-Hant"), ("zh", "zh-Hans"), ("fr-FR", "en")]
)
def test_the_whole_page_speaks_the_browsers_language(
    visit: Visit, locale: str, language: str
) -> None:
    page = visit(locale)
    ask(page, ASK_CORPS)
    page.locator(".marker").click()
    page.locator("#document mark").wait_for()
    assert page.evaluate("document.documentElement.lang") == language
    shown = page.evaluate(
        """() => [...document.querySelectorAll("body *")].flatMap((one) => [
            ...[...one.childNodes].filter((part) => part.nodeType === 3).map((part) => part.data.trim()),
            one.getAttribute("aria-label"), one.getAttribute("placeholder"), one.getAttribute("title"),
        ]).filter(Boolean)"""
    )
    for other in LANGUAGES:
        if other != language:
            assert words_of(other) & set(shown) == set()
    assert word("tagline", "en") not in page.title()


def test_the_language_is_switched_and_kept(visit: Visit) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    page.locator("#language").select_option("en")
    page.locator(".sources h3", has_text="Sources").wait_for()
    assert page.locator("#send").inner_text() == "Send"
    assert page.locator(".marker").get_attribute("aria-label") == "source 1: corps.txt, paragraph 1"
    page.locator("#language").select_option("zh-Hans")
    page.locator(".sources h3", has_text="出处").wait_for()
    page.reload()
    page.locator(".sources h3", has_text="出处").wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.locator(".told").get_attribute("lang") == "zh-Hant"


def paper(page: Page) -> str:
    return str(page.locator("#ragbot").evaluate("one => getComputedStyle(one).backgroundColor"))


def test_light_and_dark_follow_the_system_and_the_switch(visit: Visit) -> None:
    page = visit(color_scheme="dark")
    dark = paper(page)
    page.locator("#theme").select_option("light")
    light = paper(page)
    assert dark != light
    page.reload()
    page.wait_for_selector("#ragbot[data-ready=true]")
    assert paper(page) == light
    page.locator("#theme").select_option("system")
    assert paper(page) == dark
    page.emulate_media(color_scheme="light")
    page.wait_for_function(
        "light => getComputedStyle(document.querySelector('#ragbot')).backgroundColor === light",
        arg=light,
    )


@pytest.mark.parametrize("locale", ["zh-TW", "en-GB"])
def test_nothing_runs_over_the_edge_of_a_phone(visit: Visit, locale: str, tmp_path: Path) -> None:
    page = visit(locale, width=360)
    assert not overflowing(page)
    page.click("#open-documents")
    (tmp_path / ("a very long name of a file " * 5 + ".txt")).write_text("筆記裡的貓叫小黑。")
    page.set_input_files("#files", next(tmp_path.glob("*.txt")))
    page.wait_for_selector("#scope:visible")
    page.locator("#scope label").first.click()
    for question in (ASK_BRIDGE, "軍團" + "x" * 300, "w" * 200):
        ask(page, question)
        assert not overflowing(page)
    page.locator("summary:visible", has_text=re.compile("Found|找到")).first.click()
    page.locator(".marker").first.click()
    page.locator("#document mark").wait_for()
    assert not overflowing(page)
    page.keyboard.press("Escape")
    page.click("#open-list")
    assert not overflowing(page)
    page.keyboard.press("Escape")
    for place in ("#question", "#send", "#open-list"):
        box = page.locator(place).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 360
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800


def test_nothing_moves_for_who_wants_no_motion(visit: Visit, engine: Oracle) -> None:
    page = visit(reduced_motion="reduce", width=360)
    engine.gate.clear()
    ask(page, ASK_CORPS, state=None)
    page.locator(".pulse").wait_for()
    moving = page.evaluate(
        "document.getAnimations().filter((one) => one.effect.target.closest('#ragbot')).length"
    )
    assert moving == 0


# --- the keyboard, and who listens -----------------------------------------------------------


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit("en-GB", width=1000)
    page.evaluate("document.body.tabIndex = -1; document.body.focus()")
    page.keyboard.press("Tab")
    focus = page.evaluate("document.activeElement.className")
    assert focus == "skip"
    page.keyboard.press("Enter")
    page.keyboard.type(ASK_BRIDGE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn[data-state=done]")
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.matches('.marker')"):
            break
    page.keyboard.press("Enter")
    page.locator("#document mark").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.marker')")
    page.locator("#open-list").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#list').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-list"


def test_what_happens_is_said_aloud(visit: Visit, engine: Oracle) -> None:
    page = visit("en-GB")
    page.evaluate(
        """() => {
            window.heard = [];
            const news = document.querySelector("#news");
            new MutationObserver(() => news.textContent && window.heard.push(news.textContent))
                .observe(news, { childList: true });
        }"""
    )
    ask(page, ASK_BRIDGE)
    page.wait_for_function("window.heard.some((one) => one.includes('430 metres'))")
    assert page.locator("#news").get_attribute("role") == "status"


def serious(page: Page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0].get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_nothing_serious(visit: Visit, theme: Any, width: int, engine: Oracle) -> None:
    page = visit("en-GB", width=width, color_scheme=theme, reduced_motion="reduce")
    page.locator("#starts .offer").first.wait_for()
    findings = {"empty": serious(page)}
    ask(page, ASK_BRIDGE)
    ask(page, "Who designed the Blue Hill bridge, Haim?")
    ask(page, "壞掉", state="failed")
    page.locator("summary:visible", has_text="Found").first.click()
    findings["answers"] = serious(page)
    engine.gate.clear()
    ask(page, ASK_CORPS, state=None).locator(".passages li").first.wait_for()
    findings["under way"] = serious(page)
    page.click("#stop")
    engine.gate.set()
    page.locator(".marker").first.click()
    page.locator("#document mark").wait_for()
    findings["reading"] = serious(page)
    page.keyboard.press("Escape")
    page.click("#open-documents")
    findings["documents"] = serious(page)
    page.keyboard.press("Escape")
    if width == 360:
        page.click("#open-list")
        findings["list"] = serious(page)
    assert {place: found for place, found in findings.items() if found} == {}
