"""What every refusal of the API must be."""

from __future__ import annotations

from typing import Any

import httpx2


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that the answer is, which has this status and code."""
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert found["request_id"] == answer.headers["X-Request-Id"]
    return found
