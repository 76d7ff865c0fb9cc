"""Problems of the server come back as the errors that they were."""

from __future__ import annotations

import json

import httpx2
import pytest

from services.client.errors import error_of
from shared import errors
from shared.errors import ElmyrError

TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ElmyrError)
]


def answer(status: int, body: str, **headers: str) -> httpx2.Response:
    request = httpx2.Request("GET", "http://elmyr.example/v1/jobs")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, text=body, headers=named, request=request)


@pytest.mark.parametrize("kind", TREE)
def test_each_code_is_its_class(kind: type[ElmyrError]) -> None:
    body = {
        "code": kind.code,
        "detail": "what and why",
        "request_id": "r1",
        "errors": [{"pointer": "/spec/kimg", "detail": "too long"}],
    }
    error = error_of(answer(kind.status, json.dumps(body), Retry_After="7"))
    assert type(error) is kind
    assert (error.detail, error.request_id, error.retry_after_s) == ("what and why", "r1", 7.0)
    assert error.errors[0].pointer == "/spec/kimg"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (422, errors.InvalidInput),
        (429, errors.TooMany),
        (500, ElmyrError),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
        (301, ElmyrError),
    ],
)
def test_what_is_no_problem_document_is_judged_by_its_status(
    status: int, kind: type[ElmyrError]
) -> None:
    error = error_of(answer(status, "<h1>a proxy's page</h1>", X_Request_Id="r2"))
    assert type(error) is kind
    assert (error.detail, error.request_id) == (f"/v1/jobs answered {status}", "r2")


def test_a_code_of_a_later_server_is_judged_by_its_status() -> None:
    error = error_of(answer(409, json.dumps({"code": "NEW", "detail": "later"})))
    assert (type(error), error.detail) == (errors.Conflict, "later")
