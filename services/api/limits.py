"""What one request may cost: the size and depth of a JSON body, the length of a page.

The size of an upload is held where it is streamed (routes/datasets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.types import Message, Receive

from shared.errors import InvalidInput, TooLarge

MAX_DEPTH = 32
MAX_PAGE = 100
MAX_HISTORY_PAGE = 10_000
"""Entries of a job's history, which are small and come in thousands."""


class BoundedRoute(APIRoute):
    """A route that reads at most `max_json_bytes` of a body, and refuses JSON that is too deep.

    FastAPI has a limit of its own, but answers it with plain text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def bounded(request: Request) -> Response:
            body = await _read(request, request.app.state.parts.settings.max_json_bytes)
            check_json(body)
            return await handle(Request(request.scope, _replay(body, request.receive)))

        return bounded


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks, num_bytes = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise TooLarge(f"a JSON body holds at most {max_bytes} bytes")
    return b"".join(chunks)


def check_json(body: bytes) -> None:
    """Stricter than Python's parser: no NaN, no lone surrogates, no number of a million digits."""
    if not body:
        return
    try:
        level: list[Any] = [from_json(body, allow_inf_nan=False)]
    except ValueError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise InvalidInput(f"the body is nested deeper than {MAX_DEPTH} levels")


def _replay(body: bytes, receive: Receive) -> Receive:
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replayed() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        sent, message = message, None
        return sent

    return replayed
