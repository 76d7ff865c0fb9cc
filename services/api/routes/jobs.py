"""Jobs: submit, list, look, and the four verbs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from services.api.auth import Owner, needs_key
from services.api.deps import Elmyr, ExistingJob
from services.api.limits import BoundedRoute
from services.api.pages import Cursor, Limit, Page
from services.api.problems import declared
from services.api.submission import resolve, submit
from services.api.urls import job_url, with_urls
from shared.errors import (
    Conflict,
    IdempotencyClash,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from shared.ids import JobId
from shared.schemas.jobs import Job, JobKind, JobState, JobSubmission

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=BoundedRoute,
    dependencies=[needs_key],
    responses=declared(Unauthorized, InvalidInput, Unavailable),
)

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,200}$", description="Any text.")
]


class ValidatedJob(BaseModel):
    """What a submit would accept: names pinned, and the full configuration of a training (null
    while its dataset is still to be made)."""

    job: JobSubmission
    config: dict[str, Any] | None


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=Job,
    responses={200: {"model": ValidatedJob, "description": "With `validate_only=true`"}}
    | declared(NotFound, TooLarge)
    | declared(InvalidInput, IdempotencyClash),
)
def submit_job(
    submission: JobSubmission,
    parts: Elmyr,
    owner: Owner,
    response: Response,
    *,
    validate_only: bool = False,
    idempotency_key: IdempotencyKey = None,
) -> Job | Response:
    """Submit a job.

    The spec is checked against its kind, against the dataset or model that it names, and resolved;
    the job keeps what the names meant now. With `validate_only=true` nothing is made and the
    answer (200) is the resolved submission. Repeat a submit with the same `Idempotency-Key` as
    often as you like: there is one job.

    404: the dataset or model is not there, and no job of `after` will make it. 422: the body or
    spec is wrong (`errors` says where), or the key was used for another body. 503: the queue is
    full, or a store is down; `Retry-After` says when.
    """
    if validate_only:
        resolved = resolve(parts, submission)
        config = resolved.config and resolved.config.model_dump(mode="json")
        validated = ValidatedJob(job=resolved.submission, config=config)
        return JSONResponse(validated.model_dump(mode="json"))
    job = submit(parts, submission, owner=owner, key=idempotency_key)
    response.headers["Location"] = job_url(job.id)
    return with_urls(job)


@router.get("")
def list_jobs(
    parts: Elmyr,
    state: JobState | None = None,
    kind: JobKind | None = None,
    label: Annotated[str | None, Query(max_length=127, pattern=r"^[\w.-]+(=[\w.-]*)?$")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Job]:
    """List jobs, newest first. `label` is `key=value`, or `key` for any value."""
    jobs, next_cursor = parts.queue.list(
        state=state, kind=kind, label=label, cursor=cursor, limit=limit
    )
    return Page(items=[with_urls(job) for job in jobs], next_cursor=next_cursor)


@router.get("/{job_id}", responses=declared(NotFound))
def get_job(job: ExistingJob) -> Job:
    """One job: state and reason, progress, attempts, result, and `jobs_ahead` while queued."""
    return with_urls(job)


@router.post("/{job_id}/cancel", responses=declared(NotFound, Conflict))
def cancel_job(job_id: JobId, parts: Elmyr, idempotency_key: IdempotencyKey = None) -> Job:
    """Cancel a job: at once if nothing runs; otherwise `stop_requested` says `cancel` until the
    attempt has ended. 409: the job has ended."""
    return with_urls(parts.queue.cancel(job_id, key=idempotency_key))


@router.post("/{job_id}/pause", responses=declared(NotFound, Conflict))
def pause_job(job_id: JobId, parts: Elmyr, idempotency_key: IdempotencyKey = None) -> Job:
    """Pause a job: a running attempt writes a checkpoint first. 409: the job has ended."""
    return with_urls(parts.queue.pause(job_id, key=idempotency_key))


@router.post("/{job_id}/resume", responses=declared(NotFound, Conflict))
def resume_job(job_id: JobId, parts: Elmyr, idempotency_key: IdempotencyKey = None) -> Job:
    """Queue a paused job again; it goes on from its checkpoint. 409: it is not paused."""
    return with_urls(parts.queue.resume(job_id, key=idempotency_key))


@router.post("/{job_id}/retry", responses=declared(NotFound, Conflict))
def retry_job(job_id: JobId, parts: Elmyr, idempotency_key: IdempotencyKey = None) -> Job:
    """Queue a failed or canceled job again; it goes on from its newest checkpoint. 409: it has not
    failed or been canceled."""
    return with_urls(parts.queue.retry(job_id, key=idempotency_key))
