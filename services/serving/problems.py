"""Requests in and errors out: bounded bodies, typed, and application/problem+json (RFC 9457)."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shared.errors import ElmyrError, FieldError, InvalidInput, TooLarge

Body = TypeVar("Body", bound=BaseModel)

log = structlog.get_logger()


async def read_bytes(request: Request, *, max_bytes: int) -> bytes:
    """The body of a request. Raises TooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"the body is larger than {max_bytes} bytes")
    return bytes(body)


async def read_body(request: Request, kind: type[Body], *, max_bytes: int) -> Body:
    """The JSON body of a request. Raises TooLarge; InvalidInput, which points at what is wrong."""
    body = await read_bytes(request, max_bytes=max_bytes)
    return valid(lambda: kind.model_validate_json(body))


def read_query(request: Request, kind: type[Body]) -> Body:
    """The query of a request. Raises InvalidInput, which points at what is wrong."""
    return valid(lambda: kind.model_validate(dict(request.query_params)), "/query")


def valid(parse: Callable[[], Body], root: str = "") -> Body:
    """What `parse` returns. Raises InvalidInput, which points at what is wrong below `root`."""
    try:
        return parse()
    except ValidationError as error:
        errors = [
            FieldError(
                pointer=root + "".join(f"/{_escaped(part)}" for part in problem["loc"]),
                detail=problem["msg"],
            )
            for problem in error.errors(include_url=False, include_input=False)
        ]
        first = f"{errors[0].pointer or 'the body'}: {errors[0].detail}"
        raise InvalidInput(first, errors=errors) from error


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


Dialect = Callable[[dict[str, Any]], dict[str, Any]]
"""A problem's content in the words of another protocol."""


def handlers(dialects: Mapping[str, Dialect]) -> Mapping[Any, Callable[[Request, Exception], Any]]:
    """For Starlette's `exception_handlers`. Paths below a key of `dialects` answer in its words."""
    handler = partial(problem, dialects)
    return {ElmyrError: handler, HTTPException: handler, Exception: handler}


async def problem(dialects: Mapping[str, Dialect], request: Request, error: Exception) -> Response:
    """The answer to a request that raised `error`; an unknown error says nothing of itself."""
    if isinstance(error, HTTPException):  # no such route, method not allowed
        status = HTTPStatus(error.status_code)
        content = _content(status, status.name, status.phrase, str(error.detail))
    else:
        known = error if isinstance(error, ElmyrError) else ElmyrError()
        status = HTTPStatus(known.status)
        content = _content(status, known.code, known.title(), known.detail)
        if known.errors:
            content["errors"] = [field.model_dump() for field in known.errors]
        if known.retry_after_s is not None:
            content["retry_after_s"] = known.retry_after_s
    # Serve puts it into the headers of every answer.
    content["request_id"] = _request_id(request)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request failed", path=request.url.path, status=status, error=repr(error))
    headers = {}
    if "retry_after_s" in content:
        headers["Retry-After"] = str(max(1, math.ceil(content["retry_after_s"])))
    path = f"{request.scope['path']}/"
    for prefix, dialect in dialects.items():
        if path.startswith(f"{prefix}/"):
            # Other protocols' clients know what is invalid by 400.
            invalid = status == HTTPStatus.UNPROCESSABLE_ENTITY
            return JSONResponse(
                dialect(content), HTTPStatus.BAD_REQUEST if invalid else status, headers
            )
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _content(status: HTTPStatus, code: str, title: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:elmyr:problem:{code.lower().replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _request_id(request: Request) -> str:
    """The one that the client or Serve gave, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if re.fullmatch(r"[\w.:-]{1,100}", given, re.ASCII) else str(uuid.uuid4())
