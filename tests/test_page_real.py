"""The page with the packaged models, as visitors have it: answers that nobody wrote beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragbot import RagBot
from ragbot.config import load_config
from tests.conftest import ARTICLE
from tests.pages import (
    Oracle,
    Site,
    Visit,
    browser,
    needs_browser,
    served,
    visit,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["browser", "visit"]  # fixtures
pytestmark = [*needs_browser, pytest.mark.model]

PATIENCE = 240_000.0  # milliseconds for an answer, on a slow and busy machine
WHICH_HOSPITAL = "Which hospital worked with Huawei on RuiPath?"


@pytest.fixture(scope="module")
def engine() -> Oracle:
    """Not asked: the page's fixture only sees to it that nobody is kept waiting for it."""
    return Oracle({})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "incoming"))
        config = load_config({"corpus": ARTICLE, "index": folder / "index"})
        with served(RagBot.from_corpus(config=config), folder) as made:
            yield made


def ask(page: Page, question: str) -> Locator:
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn:last-child[data-state=done]", timeout=PATIENCE)
    return page.locator(".turn:last-child")


@pytest.mark.parametrize(
    ("locale", "question", "holds"),
    [
        ("zh-TW", "華為在什麼時候宣布成立醫療衛生軍團？", "3月"),
        ("zh-CN", "华为在什么时候宣布成立医疗卫生军团？", "3月"),
        ("en-GB", WHICH_HOSPITAL, "瑞金"),
    ],
)
def test_three_scripts_are_answered_and_each_sentence_can_be_checked(
    visit: Visit, site: Site, locale: str, question: str, holds: str
) -> None:
    page = visit(locale)
    turn = ask(page, question)
    assert holds in turn.locator(".told").inner_text()
    assert turn.locator(".told").get_attribute("lang") == page.locator("html").get_attribute("lang")
    assert turn.locator(".unproven").count() == 0
    marker = turn.locator(".marker").first
    quote = marker.get_attribute("data-quote") or "nothing"
    marker.click()
    page.locator("#document mark").wait_for()
    assert quote in page.locator("#document mark").inner_text()
    assert quote in site.bot.retriever.index.documents[ARTICLE.name].text
    box, screen = page.locator("#document mark").bounding_box(), page.viewport_size
    assert box and screen and 0 <= box["y"] < screen["height"]


def test_what_the_article_does_not_say_is_not_answered(visit: Visit) -> None:
    turn = ask(visit("en-GB"), "How tall is the highest mountain of Japan?")
    assert turn.locator(".verdict").inner_text() == "Not in the documents"
    assert turn.locator(".sources:not(.related)").count() == 0


def test_an_answer_is_stopped_while_the_model_reads(visit: Visit, site: Site) -> None:
    page = visit()
    page.fill("#question", "大模型廠商有哪些？它們各自做了什麼？")
    page.keyboard.press("Enter")
    page.locator(".passages li").first.wait_for(timeout=PATIENCE)
    page.click("#stop")
    assert page.locator(".turn").get_attribute("data-state") == "stopped"
    wait_until(lambda: not site.desk.running, seconds=20.0)
    assert ask(page, "RuiPath是誰做的？").locator(".told").inner_text()


def test_two_visitors_are_answered_in_turn(visit: Visit, site: Site) -> None:
    first, second = visit("en-GB"), visit()
    first.fill("#question", WHICH_HOSPITAL)
    first.keyboard.press("Enter")
    wait_until(lambda: site.desk.running)
    second.fill("#question", "國家衛健委列出了多少個應用場景？")
    second.keyboard.press("Enter")
    second.locator(".what", has_text="你是第 1 位").wait_for()
    for page, holds in ((first, "瑞金"), (second, "84")):
        page.wait_for_selector(".turn[data-state=done]", timeout=PATIENCE)
        assert holds in page.locator(".told").inner_text()


def test_a_visitors_own_document_is_answered_from(visit: Visit, tmp_path: Path) -> None:
    page = visit("en-GB", width=360)
    page.click("#open-documents")
    (tmp_path / "minutes.md").write_text(
        "# Minutes\n\nThe garden committee met on 4 May. It decided to plant eleven pear trees"
        " behind the school.\n\nThe next meeting is in June.\n"
    )
    page.set_input_files("#files", tmp_path / "minutes.md")
    page.locator("#scope:visible").wait_for(timeout=PATIENCE)
    turn = ask(page, "How many pear trees will be planted?")
    told = turn.locator(".told").inner_text().lower()
    assert "eleven" in told or "11" in told
    assert turn.locator(".badge").first.inner_text() == "your document"
