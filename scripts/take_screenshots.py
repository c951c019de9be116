"""Pictures of the page for the README: `python scripts/take_screenshots.py`, with the real models.

Starts `ragbot serve` over the article in `corpus/` and drives Chromium through what a visitor does.
`--url` takes the pictures of a server that runs already.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 300_000.0  # milliseconds for an answer
MAKING = 1_800_000.0  # milliseconds for example questions, which are made once for an index

CORPS = "華為在什麼時候宣布成立醫療衛生軍團？"
HOSPITAL = "Which hospital worked with Huawei on RuiPath?"
UNKNOWN = {"zh-TW": "東京鐵塔有多高？", "en-US": "How tall is the Tokyo Tower?"}
MINUTES = """# Garden committee

## 4 May

The committee met in the library. It decided to plant eleven pear trees behind the school.

The trees will cost 420 dollars. The parents' council pays half of that.
"""


@dataclass(frozen=True)
class Shot:
    """A picture: for whom, on what, and what is done before it is taken."""

    name: str
    steps: Callable[[Page], None]
    locale: str = "en-US"
    theme: str = "light"
    phone: bool = False


# --- what visitors do --------------------------------------------------------------------------


def ask(page: Page, question: str, state: str = "done") -> None:
    """Ask and wait for what becomes of it."""
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector(f".turn:last-child[data-state={state}]", timeout=PATIENCE)


def read_source(page: Page) -> None:
    """Open the first source of the last answer."""
    page.locator(".turn:last-child .marker").first.click()
    page.locator("#document mark").wait_for()


def begin(page: Page) -> None:
    """Wait for the example questions."""
    page.locator("#starts .offer").nth(3).wait_for(timeout=MAKING)
    page.evaluate("document.activeElement.blur()")


def answer_chinese(page: Page) -> None:
    ask(page, CORPS)
    read_source(page)


def answer_english(page: Page) -> None:
    ask(page, HOSPITAL)
    read_source(page)


def answered(page: Page) -> None:
    ask(page, CORPS)


def under_way(page: Page) -> None:
    page.fill("#question", HOSPITAL)
    page.keyboard.press("Enter")
    page.locator(".passages li").first.wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1500)


def refused_chinese(page: Page) -> None:
    ask(page, UNKNOWN["zh-TW"])


def refused_english(page: Page) -> None:
    ask(page, UNKNOWN["en-US"])


def add_document(page: Page) -> None:
    page.click("#open-documents")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "garden committee.md")
        path.write_text(MINUTES, encoding="utf-8")
        page.set_input_files("#files", path)
        page.wait_for_selector("#scope:visible", timeout=PATIENCE)
    page.locator("#toast").wait_for(state="hidden")


def documents(page: Page) -> None:
    add_document(page)
    page.click("#open-documents")


def own_document(page: Page) -> None:
    add_document(page)
    ask(page, "How many pear trees will be planted?")
    read_source(page)


def error(page: Page) -> None:
    """The connection breaks."""
    page.context.set_offline(True)
    ask(page, CORPS, state="failed")


SHOTS = [
    Shot("answer-zh-light", answer_chinese, "zh-TW"),
    Shot("answer-en-dark", answer_english, theme="dark"),
    Shot("answer-phone-zh-light", answered, "zh-TW", phone=True),
    Shot("reading-phone-en-dark", answer_english, theme="dark", phone=True),
    Shot("under-way-en-light", under_way),
    Shot("refusal-zh-dark", refused_chinese, "zh-TW", theme="dark"),
    Shot("refusal-phone-en-light", refused_english, phone=True),
    Shot("documents-en-light", documents),
    Shot("own-document-en-light", own_document),
    Shot("error-phone-zh-dark", error, "zh-TW", theme="dark", phone=True),
    Shot("start-zh-light", begin, "zh-TW"),
    Shot("start-phone-en-dark", begin, theme="dark", phone=True),
]


# --- the server and the browser ------------------------------------------------------------------


@contextmanager
def server() -> Iterator[str]:
    """The address of `ragbot serve` over the article."""
    command = [sys.executable, "-m", "ragbot", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                found = re.search(r"https?://[\w.:\[\]-]+", line)
                if found:
                    yield found[0].rstrip(":")
                    return
            raise SystemExit("ragbot serve did not start: run it by itself to see why.")
        finally:
            process.terminate()


def take(browser: Browser, url: str, shot: Shot) -> None:
    """One picture, by a visitor who has not been here before."""
    context = browser.new_context(
        locale=shot.locale,
        color_scheme="dark" if shot.theme == "dark" else "light",
        viewport={"width": 360, "height": 740} if shot.phone else {"width": 1280, "height": 800},
        device_scale_factor=2 if shot.phone else 1.5,
        has_touch=shot.phone,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(url)
    page.wait_for_selector("#ragbot[data-ready=true]")
    page.wait_for_timeout(500)
    shot.steps(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    page.screenshot(path=IMAGES / f"{shot.name}.png")
    context.close()
    print(f"{shot.name}.png")


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A browser, closed in the end."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
    try:
        yield browser
    finally:
        browser.close()


def main() -> None:
    """Take them all, or those that are named."""
    parser = argparse.ArgumentParser(description="Pictures of the page into docs/images.")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("names", nargs="*", help="only these pictures")
    arguments = parser.parse_args()
    wanted = [shot for shot in SHOTS if not arguments.names or shot.name in arguments.names]
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launched(playwright) as browser, ExitStack() as running:
        url = arguments.url or running.enter_context(server())
        for shot in wanted:
            take(browser, url, shot)


if __name__ == "__main__":
    main()
