"""Around every request: an id, headers that keep browsers in bounds, a count, and a last resort."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import problem_response
from services.api.telemetry import Telemetry

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""An answer may set its own, e.g. a picture that never changes may be cached."""

log = structlog.get_logger()


class Envelope:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        arrived = time.perf_counter()
        started = False

        async def enveloped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
                self._telemetry.count(
                    scope["method"] if scope["method"] in METHODS else "other",
                    getattr(scope.get("route"), "path", "none"),
                    message["status"],
                    time.perf_counter() - arrived,
                )
            await send(message)

        try:
            await self._app(scope, receive, enveloped)
        except Exception as error:  # the last resort: one request fails, the process goes on
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # the server cuts the connection, so that the client sees a torn answer
            await problem_response(error, request_id)(scope, receive, enveloped)
