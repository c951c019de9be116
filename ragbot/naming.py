"""The documents that somebody means: by name, by folder, or by a pattern over names.

What is known of the names is theirs alone; whose documents they are, the caller knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import islice

from ragbot.errors import UnknownDocumentError

_NEAR = 3
_COMPARED = 10_000  # names: of more the comparison would take seconds
_LONGEST = 100  # characters of what is repeated


def named(wanted: Sequence[str], names: Collection[str]) -> frozenset[str]:
    """Those of the names that are wanted: each of `wanted` is one of them, a folder of some
    (`reports/`, the slash may be left out), or a pattern (`reports/*.md`, in which a star stands
    for slashes, too). Raises UnknownDocumentError for the first that means none."""
    found: set[str] = set()
    for one in wanted:
        meant = {one} if one in names else set(_matching(one, names))
        if not meant:
            raise UnknownDocumentError(_unknown(one, names))
        found |= meant
    return frozenset(found)


def _matching(wanted: str, names: Iterable[str]) -> Iterator[str]:
    folder = wanted.rstrip("/") + "/"
    return (name for name in names if name.startswith(folder) or fnmatchcase(name, wanted))


def _unknown(wanted: str, names: Collection[str]) -> str:
    if not names:
        return f"There is no document {wanted[:_LONGEST]!r}, and no other: index some first."
    known = list(islice(names, _COMPARED))
    near = get_close_matches(wanted, known, _NEAR) or known[:_NEAR]
    return (
        f"There is no document {wanted[:_LONGEST]!r}: name one as it is called in the corpus (such"
        f" as {', '.join(map(repr, near))}), a folder, or a pattern such as '*.md'."
    )
