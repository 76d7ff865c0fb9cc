"""Errors that only a client meets, and the server's problems turned back into shared/errors.py.

ElmyrError
|-- NoStack        nothing says where Elmyr is
|-- Unreachable    an address is known, but nobody answers there (an Unavailable)
|-- JobFailed      the awaited job failed; carries its last error and the end of its log
|-- JobCanceled    the awaited job was canceled
|-- WaitTimedOut   the awaited job goes on, but the caller's patience ended
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx2
from pydantic import BaseModel, ValidationError

from shared import errors
from shared.errors import ElmyrError, FieldError, Unavailable
from shared.schemas.jobs import Job


class NoStack(ElmyrError):
    """No running Elmyr was found"""

    code = "NO_STACK"


class Unreachable(Unavailable):
    """Elmyr does not answer"""

    code = "UNREACHABLE"


class JobFailed(ElmyrError):
    """The job failed"""

    code = "JOB_FAILED"

    def __init__(self, job: Job, log_tail: Sequence[str] = ()) -> None:
        last_error = next((a.error for a in reversed(job.attempts) if a.error), None)
        why = last_error or job.reason or "no reason was given"
        super().__init__(f"job {job.id} failed: {why}")
        self.job = job
        self.log_tail = list(log_tail)
        """The last lines of the job's log, oldest first."""

    def __str__(self) -> str:
        return "\n".join([self.detail, *self.log_tail])


class JobCanceled(ElmyrError):
    """The job was canceled"""

    code = "JOB_CANCELED"

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} was canceled" + (f": {job.reason}" if job.reason else ""))
        self.job = job


class WaitTimedOut(ElmyrError):
    """The job has not ended in time"""

    code = "WAIT_TIMED_OUT"

    def __init__(self, job: Job, timeout_s: float) -> None:
        super().__init__(f"job {job.id} is still {job.state} after {timeout_s:g} s; it goes on")
        self.job = job


_KNOWN = [kind for kind in vars(errors).values() if isinstance(kind, type)]
_ERRORS = [kind for kind in _KNOWN if issubclass(kind, ElmyrError)]
_BY_CODE = {kind.code: kind for kind in _ERRORS}
# The tree's first one of a status; a gateway's 502 and 504 pass like a 503.
_BY_STATUS = {kind.status: kind for kind in reversed(_ERRORS)} | {
    502: Unavailable,
    504: Unavailable,
}


class _Problem(BaseModel):
    """What a client reads of an application/problem+json (RFC 9457)."""

    code: str = ""
    detail: str = ""
    request_id: str | None = None
    errors: list[FieldError] = []


def error_of(response: httpx2.Response) -> ElmyrError:
    """The error that an answer of status >= 400 (already read) stands for.

    An answer that is no problem document, a proxy's page for instance, is judged by its status.
    """
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _Problem()
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(response.status_code, ElmyrError)
    detail = problem.detail or f"{response.request.url.path} answered {response.status_code}"
    error = kind(detail, errors=problem.errors, retry_after_s=retry_after_s(response))
    error.request_id = problem.request_id or response.headers.get("X-Request-Id")
    return error


def retry_after_s(response: httpx2.Response) -> float | None:
    """The answer's Retry-After in seconds; dates, which nobody of ours sends, count as none."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
