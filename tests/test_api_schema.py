"""The OpenAPI document is true: Schemathesis makes requests from it, good ones and bad ones, and
compares what comes back with what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance
from starlette.types import ASGIApp

from ragbot.bot import RagBot
from ragbot.web.guard import Rules
from tests.served import TEXT, Clerk, site

HEADERS = {"host": "localhost"}
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
TRIED = [
    ("GET /v1/models", GOOD),
    ("GET /v1/models/{model}", GOOD),
    ("GET /healthz", GOOD),
    ("GET /metrics", GOOD),
    ("POST /v1/chat/completions", GOOD),
    ("POST /v1/chat/completions", BAD),
    ("POST /v1/search", GOOD),
    ("POST /v1/search", BAD),
]


@pytest.fixture
def engine() -> Clerk:
    return Clerk()


def schema_of(app: ASGIApp) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


def _good(found: Any) -> schemathesis.APIOperation[Any, Any, Any, Any]:
    operation: schemathesis.APIOperation[Any, Any, Any, Any] = found.ok()  # raises else
    return operation


@pytest.mark.parametrize("key", ["", "key"], ids=["open", "keyed"])
@pytest.mark.parametrize(("name", "mode"), TRIED)
def test_all_is_as_the_document_says(
    make_bot: Callable[..., RagBot], name: str, mode: GenerationMode, key: str
) -> None:
    schema = schema_of(site(make_bot(TEXT), Rules(rate=0, key=key)))
    operations = {one.label: one for one in map(_good, schema.get_all_operations())}
    assert set(operations) == {name for name, _ in TRIED}

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,  # what is tried is the same each time: a red test stays red
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operations[name].as_strategy(generation_mode=mode))
    def hold(case: Case[Any]) -> None:
        reply = case.call(headers=HEADERS)
        # What a question may hold, and what documents are called, no schema can say.
        said = (b"invalid_question", b"unknown_document")
        not_here = reply.status_code == 400 and any(code in reply.content for code in said)
        case.validate_response(
            reply, excluded_checks=[positive_data_acceptance] if not_here else []
        )
        assert reply.status_code < 500
        assert reply.status_code == 401 or not (key and "/v1/" in name)

    hold()
