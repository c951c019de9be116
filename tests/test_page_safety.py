"""What visitors bring along, what goes wrong, and what others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragbot.web.page.strings import word
from tests.pages import (
    ASK_CORPS,
    EVIL,
    KNOWN,
    Oracle,
    Site,
    Visit,
    ask,
    browser,
    engine,
    needs_browser,
    site,
    visit,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser", "engine", "site", "visit"]  # fixtures
pytestmark = needs_browser

# --- own documents ---------------------------------------------------------------------------


def test_a_visitors_own_document_is_asked_and_removed(
    visit: Visit, site: Site, tmp_path: Path
) -> None:
    page = visit()
    page.click("#open-documents")
    assert "最多 5 個檔案，每個 10 MB" in page.locator("#limits").inner_text()
    (tmp_path / "我的筆記.txt").write_text("筆記裡的貓叫小黑。\n別的。", encoding="utf-8")
    page.set_input_files("#files", tmp_path / "我的筆記.txt")
    page.get_by_text("已加入，可以提問了。").first.wait_for()
    turn = ask(page, "筆記裡的貓叫什麼？")
    assert "筆記裡的貓叫小黑。" in turn.locator(".told").inner_text()
    assert turn.locator(".badge").inner_text() == "你的文件"
    turn.locator(".marker").click()
    assert "筆記裡的貓叫小黑。" in page.locator("#document mark").inner_text()
    assert page.locator("#pane-mine").is_visible()
    page.reload()
    page.locator("#scope:visible").wait_for()
    page.click("#open-documents")
    page.get_by_role("button", name="移除 我的筆記.txt").click()
    page.get_by_text("還沒有加入檔案。").wait_for()
    page.keyboard.press("Escape")
    page.locator(".marker").click()
    page.get_by_text(word("gone", "zh-Hant")).wait_for()


def test_a_visitors_documents_are_nobody_elses(visit: Visit, tmp_path: Path) -> None:
    page, other = visit(), visit()
    page.click("#open-documents")
    (tmp_path / "a.txt").write_text("筆記裡的貓叫小黑。", encoding="utf-8")
    page.set_input_files("#files", tmp_path / "a.txt")
    page.wait_for_selector("#scope:visible")
    other.reload()
    other.click("#open-documents")
    other.get_by_text("還沒有加入檔案。").wait_for()
    other.keyboard.press("Escape")
    assert "小黑" not in ask(other, "筆記裡的貓叫什麼？").inner_text()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.exe", b"x", "不支援「x.exe」的格式"),
        ("空的.txt", b" ", "「空的.txt」裡沒有文字"),
        ("壞的.pdf", b"%PDF-1.7 nonsense", "「壞的.pdf」無法讀取"),
        (
            "<img src=x onerror=window.pwned=1>.exe",
            b"x",
            "不支援「<img src=x onerror=window.pwned=1>.exe」",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    visit: Visit, name: str, content: bytes, said: str
) -> None:
    page = visit()
    page.click("#open-documents")
    page.set_input_files("#files", {"name": name, "mimeType": "text/plain", "buffer": content})
    page.wait_for_function("document.querySelector('#upload-wrong').textContent")
    assert said in page.locator("#upload-wrong").inner_text()
    assert page.locator("#names li").count() == 0 and page.locator("#adding").is_hidden()
    assert page.evaluate("window.pwned") is None


def test_a_file_that_is_too_large_is_not_even_sent(visit: Visit) -> None:
    page = visit()
    page.on("request", lambda asked: pytest.fail("sent") if "upload" in asked.url else None)
    page.click("#open-documents")
    page.evaluate(
        """() => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(10 * 2 ** 20 + 1)], "large.txt"));
            const input = document.querySelector("#files");
            input.files = files.files;
            input.dispatchEvent(new Event("change", { bubbles: true }));
        }"""
    )
    page.get_by_text("「large.txt」太大，每個檔案最多 10 MB").wait_for()


# --- errors, and what others wrote -----------------------------------------------------------


@pytest.mark.parametrize(("question", "code"), [("壞掉", "model"), ("意外", "failed")])
def test_an_error_is_said_in_the_visitors_words_with_a_way_on(
    visit: Visit, engine: Oracle, question: str, code: str
) -> None:
    page = visit()
    turn = ask(page, question, state="failed")
    assert turn.locator(".failed p").inner_text() == word(f"error_{code}", "zh-Hant")
    ask(page, ASK_CORPS)
    turn = page.locator(".turn").first
    assert "secret" not in page.content() and "Traceback" not in page.content()
    known = engine.known
    engine.known = {question: KNOWN["蘋果"]}
    turn.get_by_role("button", name="再試一次").click()
    page.wait_for_selector(".turn:first-child[data-state=done]")
    assert page.locator(".asked").all_inner_texts() == [question, ASK_CORPS]
    engine.known = known


def test_a_bad_question_is_refused_in_words(visit: Visit) -> None:
    page = visit()
    turn = ask(page, "？！…", state="failed")
    assert turn.locator(".failed p").inner_text() == word("error_empty", "zh-Hant")
    page.fill("#question", "問" * 2001)
    page.keyboard.press("Enter")
    assert "2,000 字" in page.locator("#wrong").inner_text()
    assert page.locator(".turn").count() == 1


def test_a_server_that_has_gone_is_noticed(visit: Visit, engine: Oracle) -> None:
    page = visit()
    page.clock.install()
    engine.gate.clear()
    ask(page, ASK_CORPS, state=None).locator(".passages li").first.wait_for()
    page.clock.fast_forward(60_000)
    page.wait_for_selector(".turn[data-state=failed]")
    assert word("error_lost", "zh-Hant") in page.locator(".failed").inner_text()
    engine.gate.set()
    page.get_by_role("button", name="再試一次").click()
    page.wait_for_selector(".turn[data-state=done]")


def test_no_text_of_others_becomes_markup(visit: Visit) -> None:
    page = visit()
    elements = "document.querySelectorAll('img, iframe, script:not([src]), b').length"
    before = page.evaluate(elements)
    turn = ask(page, f"邪惡？ {EVIL} </textarea><script>window.pwned=4</script> \u202etxt")
    assert "<img src=x" in turn.locator(".asked").inner_text()
    turn.locator(".marker").hover()
    page.locator("#tip").wait_for()
    turn.locator(".marker").click()
    page.locator("#document mark").wait_for()
    assert "</textarea><script>" in page.locator("#document").inner_text()
    assert page.locator("#pane-title").inner_text() == "evil<b>"
    page.reload()
    page.locator("#document mark").wait_for()
    assert page.evaluate(elements) == before
    assert page.evaluate("window.pwned") is None
    assert "\u202e" not in page.content()
    assert "window.pwned" in page.locator("#title").inner_text()


def test_what_the_browser_kept_may_be_anything(visit: Visit) -> None:
    page = visit()
    ask(page, ASK_CORPS)
    page.evaluate(
        """() => {
            localStorage.setItem("ragbot:talk:broken", "{");
            localStorage.setItem("ragbot:talk:odd", JSON.stringify({ id: 3, turns: {} }));
            const key = Object.keys(localStorage).find((one) => localStorage[one].includes("軍團"));
            const talk = JSON.parse(localStorage[key]);
            talk.turns[0].answer.citations[0].doc = "<img src=x onerror=window.pwned=1>";
            talk.turns[0].answer.language = "xx";
            localStorage.setItem(key, JSON.stringify(talk));
        }"""
    )
    page.reload()
    page.wait_for_selector("#ragbot[data-ready=true]")
    page.get_by_text(word("error_failed", "zh-Hant")).first.wait_for()
    page.locator("#list [data-do=new]").click()
    ask(page, "蘋果多少元？")
    assert page.evaluate("window.pwned") is None


def test_a_page_without_a_store_still_works(visit: Visit, browser: Browser, site: Site) -> None:
    context = browser.new_context(locale="zh-TW")
    context.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no'); } });"
    )
    page = visit(context=context)
    assert ask(page, ASK_CORPS).locator(".marker").count() == 1
    page.get_by_text(word("error_unsaved", "zh-Hant")).first.wait_for()
    context.close()


def test_gradio_shows_nothing_of_its_own(visit: Visit, site: Site) -> None:
    page = visit()
    assert page.title() == f"ragbot · {word('tagline', 'zh-Hant')}"
    assert page.locator("footer:visible").count() == 0
    assert "gradio" not in page.locator("body").inner_text().lower()
    icon = page.request.get(f"{site.url}/favicon.ico")
    assert icon.ok and "svg" in icon.headers["content-type"]
    kept = json.loads(page.evaluate("JSON.stringify(Object.keys(localStorage))"))
    assert [key for key in kept if not key.startswith("ragbot:")] == []
