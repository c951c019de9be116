"""What a server need not have: a grammar, token probabilities, a count of tokens.

They are asked for all the same. What a server refuses by name is left out from then on; what it
refuses or ignores is said once in the log, with what that costs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

# What is lost without it; nothing by itself where another name does as well.
_COSTS = {
    "structured_outputs": "",
    "grammar": "replies may be out of form, and out of form they prove less",
    "logprobs": "how sure an answer is goes by the other signals, and is judged less well",
    "stream_options": "its tokens are not counted",
}
_GRAMMARS = frozenset({"structured_outputs", "grammar"})

_log = logging.getLogger(__name__)


def grammar(form: str) -> dict[str, Any]:
    """How a GBNF grammar is asked for: of vLLM by the first name, of llama-server by the second."""
    return {"structured_outputs": {"grammar": form}, "grammar": form} if form else {}


class Abilities:
    """What is known of the server at `base_url`."""

    def __init__(self, base_url: str):
        self._base_url = base_url
        self._refused: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()

    async def ask(
        self, asking: Callable[[dict[str, Any]], Awaitable[T]], request: dict[str, Any]
    ) -> T:
        """What `asking` gives for a request, without what the server refuses."""
        import openai

        while True:
            refused = self._refused
            try:
                return await asking(_without(request, refused))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                named = _named(error) - refused
                if not named:
                    raise
                self._refused |= named
                lost = named - _GRAMMARS
                if self._refused >= _GRAMMARS:
                    lost |= {"grammar"}
                self._warn(lost, "refuses")

    def compare(self, request: dict[str, Any], text: str, *, likely: bool) -> None:
        """Hold a reply against what was asked: whether its first word is that of the grammar, and
        whether probabilities came with it (`likely`)."""
        first = re.search(r'"([^"\\]+)"', request["extra_body"].get("grammar", ""))
        if text and first and not (text.startswith(first[1]) or first[1].startswith(text)):
            self._warn(frozenset({"grammar"}), "ignores")
        if text and not likely:
            self._warn(frozenset({"logprobs"}), "ignores")

    def _warn(self, lacking: frozenset[str], how: str) -> None:
        for name in sorted(lacking - self._told):
            self._told |= {name}
            _log.warning("The server at %s %s %s: %s.", self._base_url, how, name, _COSTS[name])


def _without(request: dict[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    gone = refused | ({"top_logprobs"} if "logprobs" in refused else set())
    kept = {name: value for name, value in request.items() if name not in gone}
    extra = {name: value for name, value in request["extra_body"].items() if name not in gone}
    return kept | {"extra_body": extra}


def _named(refusal: Exception) -> frozenset[str]:
    """What is optional of what a refusal names."""
    words = set(re.findall(r"[a-z_]+", str(refusal).lower()))
    words |= {"logprobs"} if "top_logprobs" in words else set()
    return frozenset(words & set(_COSTS))
