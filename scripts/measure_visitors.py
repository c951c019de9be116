"""How long visitors wait: `python scripts/measure_visitors.py`, with the real models and Chromium.

Opens the page once and asks at once; then has eight visitors, each with a browser's memory of their
own, ask at the same moment. Prints the seconds until each is answered, and fails if one is not.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
from take_screenshots import PATIENCE, launched, server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUESTIONS = [
    "華為在什麼時候宣布成立醫療衛生軍團？",
    "华为什么时候宣布成立医疗卫生军团？",
    "Which hospital worked with Huawei on RuiPath?",
    "官方指引列出了幾個應用場景？",
    "百川智能的业务做了什么调整？",
    "What is Google's medical model called?",
    "演算法要做到多少才能進臨床？",
    "两把重剑各叫什么？",
]


def opened(browser: Browser, url: str) -> Page:
    """The page as a new visitor has it."""
    page = browser.new_context().new_page()
    page.goto(url)
    page.wait_for_selector("#ragbot[data-ready=true]")
    return page


def ask(page: Page, question: str) -> None:
    """Send a question."""
    page.fill("#question", question)
    page.keyboard.press("Enter")


def finish(page: Page) -> None:
    """Wait for its answer."""
    page.wait_for_selector(".turn:last-child[data-state=done]", timeout=PATIENCE)


def main() -> None:
    """Measure and print."""
    with sync_playwright() as playwright, launched(playwright) as browser, server() as url:
        start = time.perf_counter()
        page = opened(browser, url)
        ready = time.perf_counter() - start
        ask(page, QUESTIONS[0])
        finish(page)
        first = time.perf_counter() - start
        print(f"page ready after {ready:.1f} s, first answer {first:.1f} s after opening it")
        pages = [opened(browser, url) for _ in QUESTIONS]
        start = time.perf_counter()
        for page, question in zip(pages, QUESTIONS, strict=True):
            ask(page, question)
        waited: dict[int, float] = {}
        while len(waited) < len(pages):
            for number, page in enumerate(pages):
                if number not in waited and page.locator(".turn[data-state=done]").count():
                    waited[number] = time.perf_counter() - start
            if time.perf_counter() - start > PATIENCE / 1000:
                raise SystemExit(f"{len(pages) - len(waited)} visitors got no answer.")
            page.wait_for_timeout(100)
        seconds = sorted(waited.values())
        print(
            f"{len(pages)} visitors at once: answered after",
            *(f"{one:.0f}" for one in seconds),
            "s",
        )
        print(f"median {statistics.median(seconds):.0f} s, {len(pages)} of {len(pages)} answered")


if __name__ == "__main__":
    main()
