"""Errors as HTTP answers: application/problem+json (RFC 9457), in this one place.

Which errors there are is told in shared/errors.py; nothing here knows what a route does.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from shared.errors import (
    ElmyrError,
    FieldError,
    InvalidInput,
    TooMany,
    Unauthorized,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2.0
"""When an error that passes by itself does not say how long it takes."""

log = structlog.get_logger()


class Problem(BaseModel):
    """What went wrong, for people (`title`, `detail`) and for programs (`code`, `errors`)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retry_after_s: float | None = None
    errors: list[FieldError] = Field(default_factory=list)
    """The places in the request that are wrong. `pointer` is a JSON pointer into the body; what is
    wrong elsewhere begins with `/query`, `/path` or `/header`."""


def problem_response(
    error: Exception, request_id: str, *, headers: dict[str, str] | None = None
) -> Response:
    """The answer to a request that raised `error`; an unknown error says nothing of itself."""
    problem = _problem(error, request_id)
    headers = dict(headers or {})
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    content = problem.model_dump_json(exclude_none=True)
    return Response(content, problem.status, headers, media_type=MEDIA_TYPE)


def _problem(error: Exception, request_id: str) -> Problem:
    if isinstance(error, HTTPException):  # no such route, method not allowed
        status = HTTPStatus(error.status_code)
        code, title, detail = status.name, status.phrase, str(error.detail)
        errors: list[FieldError] = []
        retry_after_s = None
    else:
        known = error if isinstance(error, ElmyrError) else ElmyrError()
        status = HTTPStatus(known.status)
        code, title, detail, errors = known.code, known.title(), known.detail, known.errors
        retry_after_s = known.retry_after_s
        if retry_after_s is None and isinstance(known, (TooMany, Unavailable)):
            retry_after_s = RETRY_AFTER_S
    return Problem(
        type=f"urn:elmyr:problem:{code.lower().replace('_', '-')}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        retry_after_s=retry_after_s,
        errors=errors,
    )


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) to a place in the body."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def install(app: FastAPI) -> None:
    """Answer every error that reaches FastAPI as a problem."""

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = InvalidInput(
            errors=[
                FieldError(pointer=_pointer_of(problem["loc"]), detail=problem["msg"])
                for problem in error.errors()
            ]
        )
        return problem_response(found, request.state.request_id)

    async def known(request: Request, error: ElmyrError) -> Response:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("request failed", path=request.url.path, code=error.code, error=str(error))
        return problem_response(error, request.state.request_id)

    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return problem_response(error, request.state.request_id, headers=headers)

    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(ElmyrError)(known)
    app.exception_handler(HTTPException)(http)


def _pointer_of(location: tuple[str | int, ...]) -> str:
    """FastAPI's location of an error, which starts with `body`, `query`, `path` or `header`."""
    return pointer(*location[1:]) if location[0] == "body" else pointer(*location)


def declared(*errors: type[ElmyrError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may raise `errors`, for its OpenAPI description."""
    by_status: dict[int | str, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.title())
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "; ".join(titles), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, titles in by_status.items()
    }


def schemas() -> dict[str, Any]:
    """The schema of a problem and of what it holds, as components of an OpenAPI document."""
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**problem.pop("$defs"), "Problem": problem}
