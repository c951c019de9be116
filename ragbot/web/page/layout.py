"""The page: one Gradio component that holds all of it, and what happens between it and the server.

What is seen is in `client/`; its only template is fixed, since Gradio would run what a value brings
into one. Values travel as data, and are put on the page as escaped HTML or as text.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from ragbot.bot import RagBot
from ragbot.fence import LONGEST_QUESTION
from ragbot.web.desk import Desk
from ragbot.web.feedback import Feedback
from ragbot.web.own.uploads import Limits, Uploads
from ragbot.web.page.asking import Asking, Update
from ragbot.web.page.records import Hello
from ragbot.web.page.service import Service
from ragbot.web.page.strings import LANGUAGES, NAMES, WORDS, word
from ragbot.web.page.visitors import Visitors
from ragbot.web.starts import Start

_CLIENT = Path(__file__).with_name("client")
_STYLES = ("page.css", "talk.css", "panels.css")
_SCRIPTS = "basics store chat composer reader list documents choice page".split()
_TABS = 500  # that may be waiting at once, as far as Gradio goes; the desk has its own bounds


def build_page(
    desk: Desk,
    bot: RagBot,
    uploads: Uploads,
    feedback: Feedback,
    starts: Callable[[], Sequence[Start]],
) -> gr.Blocks:
    """The page, to be served by `mount_page`."""

    def left(visitor: str) -> None:
        uploads.touch(visitor)  # he may be reloading the page
        desk.leave(visitor)

    visitors = Visitors(left)
    asking = Asking(desk, bot, uploads, starts, visitors)
    service = Service(bot, uploads, feedback, starts, Path(get_upload_folder()))
    page: gr.Blocks = gr.Blocks(title="ragbot", analytics_enabled=False)
    with page:
        view = gr.HTML(
            html_template=_read("page.html"),
            js_on_load=_script(),
            apply_default_css=False,
            server_functions=[service.at(desk, visitors)],
        )
        _connect(page, view, asking, visitors)
    # Figures that nobody looks at: Gradio would compute them anew, by pandas, for each question.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    page.max_threads = _TABS
    page.queue(default_concurrency_limit=None)
    return page


def mount_page(app: FastAPI, page: gr.Blocks, limits: Limits) -> FastAPI:
    """Serve the page at `/` of an app whose other routes are there already."""
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page,
        path="/",
        enable_monitoring=False,
        favicon_path=str(_CLIENT / "favicon.svg"),
        footer_links=[],
        head=_head(),
        max_file_size=limits.bytes,
        pwa=False,
        run_history=False,  # else Gradio keeps each question in the browser a second time
        show_error=False,
        ssr_mode=False,
        theme=_theme(),
    )
    return mounted


def _connect(page: gr.Blocks, view: gr.HTML, asking: Asking, visitors: Visitors) -> None:
    async def hello(event: gr.EventData, request: gr.Request) -> None:
        with suppress(ValidationError):
            visitors.here(str(request.session_hash), Hello.model_validate(event._data).visitor)

    async def ask(event: gr.EventData, request: gr.Request) -> AsyncGenerator[Update, None]:
        async with aclosing(asking.updates(event._data, str(request.session_hash))) as updates:
            async for update in updates:
                yield update

    async def closed(request: gr.Request) -> None:
        visitors.gone(str(request.session_hash))

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    view.hello(hello, None, None, queue=False, **quiet)
    view.ask(ask, None, view, trigger_mode="multiple", concurrency_limit=None, **quiet)
    page.unload(closed)


# --- the files of the client -----------------------------------------------------------------


def _read(name: str) -> str:
    return (_CLIENT / name).read_text(encoding="utf-8")


def _script() -> str:
    known = {
        "WORDS": {key: list(row.values()) for key, row in WORDS.items()},
        "LANGUAGES": LANGUAGES,
        "NAMES": NAMES,
        "LONGEST": LONGEST_QUESTION,
    }
    constants = [
        f"const {name} = {json.dumps(value, ensure_ascii=False)};" for name, value in known.items()
    ]
    return "\n".join([*constants, *(_read(f"{name}.js") for name in _SCRIPTS)])


def _head() -> str:
    """What belongs into the page's head. Gradio's own `css` would be rewritten for its elements."""
    styles = "\n".join(map(_read, _STYLES))
    icon = "data:image/svg+xml," + quote(_read("favicon.svg").strip())
    return (
        f'<link rel="icon" type="image/svg+xml" href="{icon}">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="description" content="{word("description", "en")}">'
        f"<style>{styles}</style>"
    )


def _theme() -> gr.themes.Base:
    """Gradio's, without fonts from elsewhere, and with our paper, for the moment before our own."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Base(font=fonts, font_mono=["monospace"]).set(
        body_background_fill="#f7f6f3", body_background_fill_dark="#161614"
    )
