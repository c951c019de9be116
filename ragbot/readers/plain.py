"""Plain text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from ragbot.readers.base import TERMINAL, Block, Source, read_text
from ragbot.types import LeftOut

_WRAPPED_WIDTH = 100  # characters; wider lines were not wrapped by hand


def read_txt(path: Path, keep_all: bool) -> Source:
    """Plain text: a paragraph a line, or a block of lines where they are plainly wrapped."""
    text = read_text(path)
    groups = [group for group in re.split(r"\n\s*\n", text) if group.strip()]
    if _is_wrapped(groups):
        return Source([Block(group.strip()) for group in groups])
    lines = (line.strip() for line in text.split("\n"))
    return Source([Block(line) for line in lines if line], plain=True)


def _is_wrapped(groups: Sequence[str]) -> bool:
    """Whether lines end at a margin rather than at an end: long ones, few of them finished."""
    inner = [line.strip() for group in groups for line in group.strip().split("\n")[:-1]]
    if len(groups) < 2 or len(inner) < len(groups):
        return False
    widths = sorted(map(len, inner))
    unfinished = sum(not line.endswith(TERMINAL) for line in inner)
    even = sum(width >= 0.7 * widths[-1] for width in widths)
    return (
        30 <= widths[-1] <= _WRAPPED_WIDTH
        and unfinished >= 0.8 * len(inner)
        and even >= 0.7 * len(inner)
    )


def read_markdown(path: Path, keep_all: bool) -> Source:
    """Markdown as written: headings, and a paragraph for each paragraph, list, table or quote."""
    from markdown_it import MarkdownIt

    text = read_text(path)
    left_out = []
    if (matter := re.match(r"---\n.*?\n(?:---|\.\.\.)\n", text, re.DOTALL)) is not None:
        left_out.append(LeftOut(matter.group().strip(), "front matter"))
        text = text[matter.end() :]
    lines = text.split("\n")
    # Of what stands in a line nothing is asked, and it is there that parsing can take for ever.
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse(text)
    blocks = []
    for token, following in zip_longest(tokens, tokens[1:]):
        if token.level or token.map is None or token.nesting < 0:
            continue
        written = "\n".join(lines[token.map[0] : token.map[1]]).strip()
        is_heading = token.type == "heading_open" and following is not None
        level = int(token.tag[1]) if is_heading else 0
        title = following.content if is_heading and following is not None else ""
        if written:
            blocks.append(Block(written, level, title))
    title = next((block.title for block in blocks if block.level == 1), "")
    return Source(blocks, title, left_out, plain=True)
