"""The page's words: all there, in each language, and no other ones on the page."""

from __future__ import annotations

import re
import string
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest

import ragbot.web.page
from ragbot.errors import UnknownDocumentError
from ragbot.fence import LONGEST_QUESTION
from ragbot.text import HAN, detect_script, to_language
from ragbot.types import Stage
from ragbot.web.desk import BusyError, LateError, LeftError
from ragbot.web.own.files import Reason
from ragbot.web.own.uploads import UploadError
from ragbot.web.page.failures import NoDocumentsError, bad_question, failure
from ragbot.web.page.strings import LANGUAGES, NAMES, WORDS, word

WEB = Path(ragbot.web.page.__file__).parent
CLIENT = sorted((WEB / "client").iterdir())
PAGE = (WEB / "client" / "page.html").read_text(encoding="utf-8")
STAGES = ["sending", "waiting", *get_args(Stage)]
BUILT = {  # keys that are put together from a beginning and a code
    *STAGES,
    *(key for key in WORDS if key.startswith(("error_", "upload_"))),
    *(key for key in WORDS if key.startswith("stopped")),
}


def used() -> set[str]:
    """What looks like a key in the sources of the page."""
    sources = [path for path in (*CLIENT, *WEB.glob("*.py")) if path.suffix != ".svg"]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    return set(re.findall(r"[\"'](\w+)[\"']", text))


@pytest.mark.parametrize("key", WORDS)
def test_a_word_is_there_in_all_three_languages(key: str) -> None:
    hant, hans, en = (word(key, language) for language in LANGUAGES)
    assert hant and hans and en
    assert to_language(hant, "zh-Hant") == hant, "a Simplified character"
    assert to_language(hans, "zh-Hans") == hans, "a Traditional character"
    assert not re.search(f"[{HAN}]", en)


@pytest.mark.parametrize("key", WORDS)
def test_the_places_for_values_are_the_same(key: str) -> None:
    places = [
        sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)
        for text in WORDS[key].values()
    ]
    assert places[0] == places[1] == places[2]


def test_each_script_names_itself() -> None:
    assert [detect_script(NAMES[one]) for one in LANGUAGES[:2]] == ["zh-Hant", "zh-Hans"]


def test_no_word_is_missing_or_left_over() -> None:
    asked = set(re.findall(r'data-t(?:-label|-placeholder)?="(\w+)"', PAGE))
    scripts = "".join(path.read_text("utf-8") for path in CLIENT if path.suffix == ".js")
    asked |= {key for key in re.findall(r'\bsay\("(\w+)"', scripts) if not key.endswith("_")}
    assert asked - set(WORDS) == set()
    assert set(WORDS) - used() - BUILT == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_words(stage: str) -> None:
    assert stage in WORDS


@pytest.mark.parametrize(
    "error",
    [
        BusyError("full"),
        BusyError("yours"),
        LateError("queue", 1),
        LateError("work", 1),
        LeftError(),
        NoDocumentsError(),
        UnknownDocumentError("a.txt"),
        RuntimeError("unforeseen"),
    ],
)
def test_every_failure_has_words(error: Exception) -> None:
    assert f"error_{failure(error)['code']}" in WORDS


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_refused_file_has_words(reason: Reason) -> None:
    told = failure(UploadError(reason, "a.txt"))
    assert told["name"] == "a.txt" and f"upload_{told['code']}" in WORDS


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("", "empty"),
        ("？！", "empty"),
        ("a" * (LONGEST_QUESTION + 1), "long"),
        ("a\0b", "characters"),
    ],
)
def test_every_bad_question_has_words(question: str, code: str) -> None:
    assert bad_question(question)["code"] == code and f"error_{code}" in WORDS


# --- what the client's files may hold --------------------------------------------------------


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_the_page_itself_says_nothing_but_its_name() -> None:
    reader = _Texts()
    reader.feed(PAGE)
    assert set(reader.texts) == {"ragbot"}
    assert not re.findall(r'[\s](?:title|placeholder|aria-label|alt)="', PAGE)


def test_the_template_holds_nothing_to_be_evaluated() -> None:
    assert not re.search(r"\$\{|\{\{|`|\\|@children", PAGE)


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: str(path.name))
def test_nothing_is_fetched_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
    assert not re.search(r"https?:|@import|@font-face|\bfetch\(|XMLHttpRequest|\beval\(", text)
    assert not re.search(r"url\((?!\"data:)", text)


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: str(path.name))
def test_a_file_of_the_client_stays_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_markup_is_put_in_only_where_the_server_escaped_it() -> None:
    scripts = "".join(path.read_text("utf-8") for path in CLIENT if path.suffix == ".js")
    places = re.findall(r"\S+(?:innerHTML|insertAdjacentHTML|outerHTML)[^;]*;", scripts)
    assert [" ".join(place.split()) for place in places] == [
        "answer.innerHTML = html;",
        'progress).innerHTML = running.passages || "";',
        'nearest.innerHTML = running.nearest || "";',
        '$("#document").innerHTML = reply.html;',
        '$("#document").insertAdjacentHTML(part === "before" ? "afterbegin" : "beforeend", reply.html);',
    ]
