"""The report in a real browser, as a reader opens it: no server, no network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ragbot.evaluation.command import Output, conduct, show_comparison
from ragbot.evaluation.conditions import Conditions
from tests.test_evaluation import NOTHING, RIGHT, Make, evaluation, questions, silent, two_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["evaluation", "questions", "two_runs"]  # fixtures
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page; at the end, nothing may have failed and no other address been asked."""
    trouble: list[str] = []
    contexts = []

    def go(path: Path, *, locale: str = "en-US", width: int = 1100) -> Page:
        context = browser.new_context(locale=locale, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:")) else trouble.append(asked.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture
def report(evaluation: Make, tmp_path: Path) -> Path:
    """Of three questions the second is wrong, and its text would like to be markup."""
    replies = (RIGHT[0], NOTHING, RIGHT[2])
    conduct(evaluation(*replies), Output(tmp_path / "run"), silent)
    return tmp_path / "run" / "report.html"


def test_the_figures_come_first_then_the_wrong_ones(
    report: Path, visit: Callable[..., Page]
) -> None:
    page = visit(report)
    cards = page.locator(".card").all_inner_texts()
    assert cards[0].startswith("Right answers\n50.0\u202f%") or cards[0].startswith(
        "Right answers\n50.0 %"
    )
    listed = page.locator("main > div > details > summary").all_inner_texts()
    assert "香蕉" in listed[0] and "wrongly refused" in listed[0]
    assert len(listed) == 3


def test_a_question_opens_on_answer_citation_and_passages(
    report: Path, visit: Callable[..., Page]
) -> None:
    page = visit(report)
    page.get_by_text("蘋果一斤賣多少元？").click()
    body = page.locator("details[open] .body").first
    assert "蘋果一斤賣31元。[1]" in body.inner_text()
    assert body.locator("mark").first.inner_text() == "蘋果一斤賣31元。"
    assert "paragraph 1" in body.inner_text()


def test_the_list_is_filtered(report: Path, visit: Callable[..., Page]) -> None:
    page = visit(report)
    rows = page.locator("main > div > details > summary")
    page.get_by_role("searchbox").fill("芒果")
    assert rows.count() == 1
    page.get_by_role("searchbox").fill("")
    page.get_by_label("outcome").select_option("bad")
    assert rows.count() == 1
    assert "1 / 3" in page.get_by_role("status").inner_text()


@pytest.mark.parametrize(
    ("locale", "title", "right"),
    [
        ("en-GB", "Evaluation", "Right answers"),
        ("zh-TW", "評測", "答對率"),
        ("zh-CN", "评测", "答对率"),
    ],
)
def test_it_speaks_the_browsers_language(
    report: Path, visit: Callable[..., Page], locale: str, title: str, right: str
) -> None:
    page = visit(report, locale=locale)
    assert page.title().startswith(title)
    assert right in page.locator(".card").first.inner_text()
    page.locator("select.switch").select_option("en")
    assert page.title().startswith("Evaluation")
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("locale", ["en-US", "zh-TW"])
def test_nothing_runs_over_the_edge_of_a_phone(
    report: Path, visit: Callable[..., Page], locale: str
) -> None:
    page = visit(report, locale=locale, width=360)
    page.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_comparison_shows_what_flipped(
    two_runs: tuple[Path, Path], tmp_path: Path, visit: Callable[..., Page]
) -> None:
    show_comparison(*two_runs, tmp_path / "c.html", as_json=True)
    page = visit(tmp_path / "c.html", width=360)
    assert "Right in B only: 1" in page.locator("h2").all_inner_texts()
    assert "香蕉一斤賣22元。[1]" in page.locator("main").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(
    "plan", [{"retrieval_only": True}, {"conditions": Conditions(remove_gold=True)}]
)
def test_what_was_not_measured_is_left_out(
    evaluation: Make, tmp_path: Path, visit: Callable[..., Page], plan: dict[str, Any]
) -> None:
    conduct(evaluation(*[NOTHING] * 3, **plan), Output(tmp_path / "run"), silent)
    page = visit(tmp_path / "run" / "report.html")
    assert "NaN" not in page.locator("main").inner_text()
    assert "undefined" not in page.locator("main").inner_text()
