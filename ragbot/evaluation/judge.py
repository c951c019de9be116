"""A language model's opinion of an answer, by DeepEval's metrics; it stands apart from all others.

Of the two libraries looked at, ragas 0.4.3 does not import beside the langchain it asks for;
DeepEval 4.3 works with a local server and no other connection. It is an extra: `ragbot[judge]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ragbot.config import Config
from ragbot.engines.http import HttpEngine
from ragbot.errors import ConfigError, ModelError
from ragbot.evaluation.records import Scores
from ragbot.workspace import Report, default_engine

Judge = Callable[[str, str, Sequence[str]], Scores]
"""Question, answer and passages to the judge's scores; None where it gave no usable verdict."""

FAITHFULNESS, RELEVANCE = "judge_faithfulness", "judge_relevance"
_CONTEXT = 8192  # tokens; DeepEval's instructions are long


def open_judge(name: str, config: Config, report: Report) -> Judge:
    """The judge called `MODEL@http://.../v1`, or a model of this machine.

    A server's key is taken from OPENAI_API_KEY. Raises ConfigError, ModelError.
    """
    # It would read .env files and report its use.
    os.environ.update(DEEPEVAL_TELEMETRY_OPT_OUT="YES", DEEPEVAL_DISABLE_DOTENV="1")
    try:
        from deepeval.metrics import AnswerRelevancyMetric, FaithfulnessMetric
        from deepeval.models import LocalModel
        from deepeval.test_case import LLMTestCase
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The judge needs {error.name}: install it with `pip install 'ragbot[judge]'`."
        ) from error
    server = _server(name, config, report)
    model = LocalModel(
        model=server.name, base_url=server.base_url, api_key=server.api_key, temperature=0
    )
    metrics = {
        key: partial(metric, model=model, include_reason=False, async_mode=False)
        for key, metric in ((FAITHFULNESS, FaithfulnessMetric), (RELEVANCE, AnswerRelevancyMetric))
    }

    def judge(question: str, answer: str, passages: Sequence[str]) -> Scores:
        case = LLMTestCase(input=question, actual_output=answer, retrieval_context=list(passages))
        return {key: _measured(metric(), case, server) for key, metric in metrics.items()}

    return judge


def _measured(metric: Any, case: Any, server: HttpEngine) -> float | None:
    """A metric's score; None when the judge did not give the JSON that it was asked for.

    Raises ModelError when `server` cannot be reached; a local one lives as long as it is held here.
    """
    from openai import APIError
    from tenacity import RetryError

    try:
        return float(metric.measure(case, _show_indicator=False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    except (APIError, RetryError) as error:
        raise ModelError(
            f"The judge at {server.base_url} does not answer ({error}): see whether it runs."
        ) from error


def _server(name: str, config: Config, report: Report) -> HttpEngine:
    model, at, url = name.rpartition("@")
    if at and url.startswith(("http://", "https://")):
        return HttpEngine(model, url, os.environ.get("OPENAI_API_KEY", ""))
    local = config.model_copy(
        update={"llm": name, "engine": "llamacpp", "context": max(config.context, _CONTEXT)}
    )
    engine = default_engine(local, report)
    if not isinstance(engine, HttpEngine):
        raise ConfigError(f"{name!r} cannot judge: name a GGUF model or MODEL@http://.../v1.")
    return engine
