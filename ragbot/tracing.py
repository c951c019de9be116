"""What is done for a question, as OpenTelemetry spans: none unless standard variables ask for it.

Where nobody has loaded OpenTelemetry a span is nothing; a program that has set it up finds ours
among its own. They hold figures and no text, but for question and answer where `TEXTS` is "true".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ragbot.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

TEXTS = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

Value = str | bool | int | float


def _api() -> Any:
    return sys.modules.get("opentelemetry.trace")


@contextmanager
def span(name: str, *, calls: bool = False) -> Iterator[None]:
    """A piece of work, also as a decorator; `calls` tells that another server does it. What it
    raises is noted by its kind alone."""
    api = _api()
    if api is None:
        yield
        return
    kind = api.SpanKind.CLIENT if calls else api.SpanKind.INTERNAL
    tracer = api.get_tracer("ragbot")
    quiet = {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(name, kind=kind, **quiet) as started:
        try:
            yield
        except BaseException as error:
            started.set_status(api.StatusCode.ERROR)
            started.set_attribute("error.type", type(error).__name__)
            raise


def note(attributes: Mapping[str, Value]) -> None:
    """Figures of the span under way."""
    if api := _api():
        api.get_current_span().set_attributes(attributes)


def note_texts(texts: Mapping[str, str]) -> None:
    """Texts of the span under way, which are kept only where they are asked for."""
    if os.environ.get(TEXTS, "").lower() == "true":
        note(texts)


def headers() -> dict[str, str]:
    """What tells a server which span its work belongs to (W3C trace context)."""
    carrier: dict[str, str] = {}
    if _api():
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


# --- where they go -------------------------------------------------------------------------------


def turn_on() -> None:
    """Send spans where `OTEL_TRACES_EXPORTER` (otlp, console) and its kin say, nowhere by default.

    Raises ConfigError where that cannot be done.
    """
    exporter = _exporter()
    if not exporter:
        return
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        processor = _processor(exporter)
    except ImportError as error:
        raise ConfigError(
            'Traces need a library: pip install "ragbot[telemetry]", or set OTEL_SDK_DISABLED=true.'
        ) from error
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", "ragbot")
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)


def turn_off() -> None:
    """Send what has not been sent yet: for who leaves without the usual farewell."""
    if api := _api():
        getattr(api.get_tracer_provider(), "shutdown", lambda: None)()


def _exporter() -> str:
    """The name of what spans are given to; empty for none. Raises ConfigError."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    usual = "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none"
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or usual
    if name not in ("otlp", "console", "none"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER={name!r} is unknown: use otlp, console or none.")
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if name == "otlp" and protocol != "http/protobuf":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} is not spoken: set it to http/protobuf, "
            "whose port is mostly 4318."
        )
    return "" if name == "none" else name


def _processor(exporter: str) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
        SimpleSpanProcessor,
    )

    if exporter == "console":  # a line each, beside the log: standard output is for answers
        return SimpleSpanProcessor(
            ConsoleSpanExporter(
                out=sys.stderr, formatter=lambda done: f"{done.to_json(indent=None)}\n"
            )
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # A collector that is away holds up the end of a command that long, not 10 seconds.
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    return BatchSpanProcessor(OTLPSpanExporter())
