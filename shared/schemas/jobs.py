"""A job, its attempts, its states, and the one table of transitions.

The queue's Lua scripts obey this table, docs/states.md draws it, and a test holds the three
against each other.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.ids import JobId


class JobKind(StrEnum):
    INGEST = "ingest"
    TRAIN = "train"
    SAMPLE = "sample"
    ENCODE = "encode"
    EVALUATE = "evaluate"


class JobState(StrEnum):
    # Put there by a submit, a resume, a retry, or the dispatcher when an attempt ended early; stays
    # until a dispatcher leases it (a retry waits its delay). A crash of anything leaves it here.
    QUEUED = "queued"
    # Put there by the dispatcher that leased it; lasts seconds, while Ray starts the attempt. If
    # the dispatcher dies, another adopts the job when the lease ends.
    STARTING = "starting"
    # Put there by the attempt's first heartbeat; lasts as long as the work. If the dispatcher dies
    # the attempt goes on and is adopted; if the attempt dies the job is queued again.
    RUNNING = "running"
    # Put there by the attempt after its last checkpoint (or at once from queued). Stays until
    # resumed or canceled.
    PAUSED = "paused"
    # Final. The result is in object storage before the state says so.
    SUCCEEDED = "succeeded"
    # Final until somebody asks for a retry: the error is not retryable or the attempts are used up.
    FAILED = "failed"
    # Final until somebody asks for a retry: a cancel was asked, and nothing runs any more.
    CANCELED = "canceled"


ACTIVE_STATES = frozenset({JobState.STARTING, JobState.RUNNING})
FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, JobState.CANCELED}),
    JobState.STARTING: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELED: frozenset({JobState.QUEUED}),
}


class StopRequest(StrEnum):
    """A wish on a job, seen by the attempt within a second; the state changes when it is true."""

    CANCEL = "cancel"
    PAUSE = "pause"


class Outcome(StrEnum):
    """How an attempt ended, as the attempt (or Ray, for a dead one) says it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # an error that another try cannot mend: no retry
    CRASHED = "crashed"  # an error or a death that another try may mend: counts as a failure
    INTERRUPTED = "interrupted"  # SIGTERM from outside: queued again, does not count as a failure
    PAUSED = "paused"
    CANCELED = "canceled"


class Progress(BaseModel):
    """How far a job is. Train jobs count kimg, others count items (`done` of `of`)."""

    kimg: float | None = None
    done: int | None = None
    of: float | None = None
    img_per_s: float | None = None
    eta_s: float | None = None


class Attempt(BaseModel):
    """One try at a job. `number` is also its fencing token and the end of its Ray job's name."""

    number: int
    state: Literal["starting", "running", "ended"]
    outcome: Outcome | None = None
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None


Label = Annotated[str, StringConstraints(max_length=63, pattern=r"^[\w.-]*$")]


class JobSubmission(BaseModel):
    """The body of `POST /v1/jobs`, before the spec is resolved against its kind."""

    model_config = ConfigDict(extra="forbid")

    kind: JobKind
    spec: dict[str, Any]
    name: Annotated[str, StringConstraints(max_length=120)] | None = None
    priority: int = Field(0, ge=-100, le=100)
    """Higher runs first; equal priorities run in order of age."""
    labels: dict[Label, Label] = Field(default_factory=dict, max_length=16)
    max_attempts: int = Field(3, ge=1, le=20)
    deadline_s: float | None = Field(None, gt=0)
    """Seconds from the submit after which the job is canceled, waiting or running."""
    after: list[JobId] = Field(default_factory=list, max_length=16)
    """Jobs that must have succeeded before this one may start."""


class Job(BaseModel):
    """A job as the queue holds it and the API shows it."""

    id: JobId
    kind: JobKind
    name: str | None = None
    owner: str
    state: JobState
    reason: str | None = None
    """Why it is in this state, or what it waits for."""
    stop_requested: StopRequest | None = None
    spec: dict[str, Any]
    priority: int
    labels: dict[str, str] = Field(default_factory=dict)
    max_attempts: int
    num_failures: int = 0
    """Attempts that crashed; a retry is made while it is below `max_attempts`."""
    deadline_s: float | None = None
    after: list[JobId] = Field(default_factory=list)
    attempts: list[Attempt] = Field(default_factory=list)
    progress: Progress = Field(default_factory=Progress)
    result: dict[str, Any] | None = None
    jobs_ahead: int | None = None
    """Queued jobs that would be leased before this one; only while it is queued."""
    traceparent: str | None = None
    """The trace of the request that made it, as W3C writes it; its attempts are part of it."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    urls: dict[str, str] = Field(default_factory=dict)

    @property
    def token(self) -> int:
        """The number of the newest attempt; 0 before the first."""
        return self.attempts[-1].number if self.attempts else 0
