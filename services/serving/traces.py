"""A trace for each request, if traces are on: its span, with who answered it and what was drawn.

A caller's own trace is not joined: the endpoint asks for no key, so anybody may call.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import tracing

NAMED = ("model", "version", "job", "seed")
"""What the headers of pictures say of them."""


def traced(app: ASGIApp) -> ASGIApp:
    """The application itself while traces are off."""
    return Traced(app) if tracing.provider() else app


class Traced:
    """An application whose requests make spans."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with tracing.span("serve", method=scope["method"]) as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = Headers(raw=message["headers"])
                    told = {name: headers.get(f"x-elmyr-{name}") for name in NAMED}
                    span.update_name(getattr(scope.get("endpoint"), "__name__", "none"))
                    span.set_attribute("http.response.status_code", message["status"])
                    span.set_attributes({f"elmyr.{k}": v for k, v in told.items() if v})
                await send(message)

            await self._app(scope, receive, noted)
