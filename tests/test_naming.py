"""Which documents are meant by what somebody wrote."""

from __future__ import annotations

import pytest

from ragbot.errors import ConfigError, UnknownDocumentError
from ragbot.naming import named

NAMES = ("a.md", "reports/a.md", "reports/2024/b.md", "reports.md", "[x].md", "報告 一.txt")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ((), ()),
        (("a.md",), ("a.md",)),
        (("reports/",), NAMES[1:3]),
        (("reports",), NAMES[1:3]),
        (("reports/2024",), ("reports/2024/b.md",)),
        (("reports/*.md",), NAMES[1:3]),
        (("*.md",), NAMES[:5]),
        (("?.md",), ("a.md",)),
        (("[x].md",), ("[x].md",)),
        (("報告*", "a.md"), ("報告 一.txt", "a.md")),
    ],
)
def test_names_folders_and_patterns(wanted: tuple[str, ...], meant: tuple[str, ...]) -> None:
    assert named(wanted, NAMES) == frozenset(meant)


@pytest.mark.parametrize("wanted", ["A.md", "", "/", "report", "../a.md", "*.pdf", "x" * 9999])
def test_what_means_none_is_a_sentence_that_helps(wanted: str) -> None:
    with pytest.raises(UnknownDocumentError, match=r"such as '.*folder.*pattern") as caught:
        named(["a.md", wanted], NAMES)
    assert isinstance(caught.value, ConfigError)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_the_nearest_names_are_told() -> None:
    with pytest.raises(UnknownDocumentError, match=r"such as '報告 一.txt'\)"):
        named(["報告一.txt"], NAMES)
    with pytest.raises(UnknownDocumentError, match="index some"):
        named(["a.md"], [])
