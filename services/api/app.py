"""The API: every part of it put together.

Requests pass `Envelope` (id, headers, count), `Authentication`, FastAPI and one route; routes speak
to the queue and the object store through `Parts`. Nothing here starts or watches work: that is the
dispatcher's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.telemetry import TelemetryConfig

from services.api import docs, problems
from services.api.auth import Authentication, KeyRing
from services.api.deps import Parts
from services.api.middleware import Envelope
from services.api.routes import artifacts, datasets, events, health, jobs, models, replays, samples
from services.api.telemetry import Telemetry
from services.api.uploads import NUM_UPLOADS
from shared import tracing
from shared.settings import Settings

NOT_TRACED = frozenset({"/healthz", "/readyz", "/metrics"})

NUM_THREADS = 64
"""Calls to Redis and S3 at once; they wait much longer than they compute."""


class Api(FastAPI):
    """FastAPI, with problems in its description."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        document["components"]["schemas"] |= problems.schemas()
        return document


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is sent to Redis or S3 before it starts.

    Its start raises UnsafeStore when they lack what the design relies on, Unavailable when they do
    not answer.
    """
    parts = Parts.from_settings(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
        app.state.uploads = anyio.CapacityLimiter(NUM_UPLOADS)
        await to_thread.run_sync(_check, parts)
        yield

    app = Api(
        title="Elmyr",
        version="1",
        summary="Trains networks that forge, and serves what it trained.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_traces(),
    )
    app.add_api_route("/docs", _docs, include_in_schema=False, response_class=HTMLResponse)
    app.state.parts = parts
    app.state.telemetry = Telemetry(parts.queue, parts.store)
    for routes in (jobs, events, samples, artifacts, datasets, models, replays, health):
        app.include_router(routes.router)
    problems.install(app)
    app.add_middleware(Authentication, keys=KeyRing(settings.api_keys))
    app.add_middleware(Envelope, telemetry=app.state.telemetry)
    return app


def _traces() -> TelemetryConfig:
    """A span for each request, if traces are on; FastAPI's own metrics and logs are never sent."""
    provider = tracing.provider()
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "exclude": lambda scope: scope["path"] in NOT_TRACED,
    }


async def _docs(request: Request) -> Response:
    headers = {"Content-Security-Policy": docs.POLICY}
    return HTMLResponse(docs.page(request.app.openapi()), headers=headers)


def _check(parts: Parts) -> None:
    parts.queue.check_server()
    parts.store.ensure_bucket()
    parts.store.probe()
