"""Spans by OpenTelemetry, sent by OTLP over HTTP; nothing of it is imported while traces are off.

A job keeps the `traceparent` of the request that made it, so that what dispatchers and attempts do
for it later, in other processes, is part of that request's trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidInput
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TIMEOUT_S = 2.0
"""A collector that is away holds up the end of a process for so long; its spans are lost."""

Attribute = str | int | float | bool

_provider: TracerProvider | None = None


def configure(process: str, settings: Settings) -> None:
    """Send this process's spans to `settings.otlp_endpoint`, if one is set.

    Raises InvalidInput when the extra `tracing` is not installed.
    """
    global _provider
    if not settings.otlp_endpoint or _provider:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInput(
            f"ELMYR_OTLP_ENDPOINT is set, but {error.name} is missing: install elmyr[tracing]"
        ) from error
    _provider = TracerProvider(resource=Resource.create({"service.name": f"elmyr-{process}"}))
    url = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(url, timeout=TIMEOUT_S)
    _provider.add_span_processor(BatchSpanProcessor(exporter))


def close() -> None:
    """Send what is left; traces are off from here on."""
    global _provider
    if _provider:
        _provider.shutdown()
        _provider = None


def provider() -> TracerProvider | None:
    """Where spans of this process are made; None while traces are off."""
    return _provider


def span(
    name: str, *, parent: str | None = None, **attributes: Attribute
) -> AbstractContextManager[Any]:
    """A span around a block: a child of `parent` (a traceparent), else of the present one."""
    return _span(_provider, name, parent, attributes) if _provider else nullcontext()


def traceparent() -> str | None:
    """The present span, as W3C writes it; None outside of one."""
    if not _provider:
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def _span(
    provider: TracerProvider, name: str, parent: str | None, attributes: dict[str, Attribute]
) -> Iterator[Any]:
    from opentelemetry.propagate import extract

    context = extract({"traceparent": parent}) if parent else None
    prefixed = {f"elmyr.{key}": value for key, value in attributes.items()}
    tracer = provider.get_tracer("elmyr")
    with tracer.start_as_current_span(name, context, attributes=prefixed) as current:
        yield current
