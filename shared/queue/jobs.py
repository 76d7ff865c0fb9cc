"""The job queue: every job's state, and who may work on it.

Each method is one Lua script, which Redis runs as a whole or not at all; the scripts hold the
rules (lua/), this file their words in Python. Times are Redis's. What a job's work is, and where
it runs, is not known here.

Two numbers guard a job. The lease's *owner* is the dispatcher that looks after it: it changes when
another one takes over. The *token* is the newest attempt's number: it changes when a new attempt
begins, and from then on every older attempt is refused.

All methods raise Unavailable while Redis is down, and NotFound for a job that is not there.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from pydantic_core import to_json

from shared.errors import InvalidInput
from shared.queue.connection import Connection, redis_errors
from shared.schemas.jobs import (
    ACTIVE_STATES,
    FINAL_STATES,
    Job,
    JobKind,
    JobState,
    JobSubmission,
    Outcome,
    Progress,
    StopRequest,
)
from shared.settings import Settings

Fields = dict[str, str]
"""A job's hash in Redis; lua/preamble.lua lists the fields."""
Jobs = list[Job]
"""Named, since JobQueue has a method `list`."""

MAX_ERROR_CHARS = 4000  # of an attempt's error: a record in Redis, not a log
BATCH = 1000  # jobs that one script may touch beside the one asked for: a few milliseconds
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BLOCK_S = 1.0  # one wait inside Redis; shorter than the connection's timeout


@dataclass(frozen=True, slots=True)
class Tally:
    """What the queue has counted since it was made."""

    attempts: dict[tuple[JobKind, Outcome], int]
    """Attempts that have ended."""
    lease_expiries: int
    """Leases that ended without their owner letting go."""


class JobQueue:
    """The queue of one deployment; threads may share it, a fork never."""

    def __init__(
        self,
        connection: Connection,
        *,
        max_queued_jobs: int,
        retry_base_s: float,
        retry_max_s: float,
    ) -> None:
        self._redis = connection
        self._max_queued_jobs = max_queued_jobs
        self._retry_base_s = retry_base_s
        self._retry_max_s = retry_max_s
        self._jitter = secrets.SystemRandom()
        self._woken = "0"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            Connection.from_settings(settings),
            max_queued_jobs=settings.max_queued_jobs,
            retry_base_s=settings.retry_base_s,
            retry_max_s=settings.retry_max_s,
        )

    def check_server(self) -> None:
        """Raises UnsafeStore when this server may lose jobs that it has accepted."""
        self._redis.check_server()

    def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        with redis_errors():
            self._redis.client.ping()

    # What users ask. A verb that is repeated under its `key`, with no other verb in between, is
    # answered with the job as it is.

    def submit(
        self,
        job_id: str,
        submission: JobSubmission,
        *,
        owner: str,
        body_sha256: str = "",
        traceparent: str | None = None,
    ) -> tuple[Job, bool]:
        """Accept a job; returns it and whether it is new. `traceparent` names a trace to join.

        A known id with the same `body_sha256` is answered with the job that is there. Raises
        IdempotencyClash for another body, InvalidInput for an unknown job in `after`, Unavailable
        when the queue is full.
        """
        answer, job = self._redis.run_while(
            lambda: Job.model_validate(
                {
                    **vars(submission),
                    "id": job_id,
                    "owner": owner,
                    "state": JobState.QUEUED,
                    "traceparent": traceparent,
                    "created_at": EPOCH,
                    "updated_at": EPOCH,
                }
            ),
            "submit",
            job_id,
            owner,
            body_sha256,
            submission.model_dump_json(exclude_defaults=True),
            submission.priority,
            submission.max_attempts,
            "" if submission.deadline_s is None else _ms(submission.deadline_s),
            to_json(submission.after).decode(),
            self._max_queued_jobs,
            traceparent or "",
            keys=self._indexes(submission),
        )
        new, at, *stored = answer
        if stored:
            return _job(_fields(stored[0])), bool(new)
        job.created_at = job.updated_at = EPOCH + timedelta(milliseconds=at)
        return job, True

    def cancel(self, job_id: str, *, key: str | None = None) -> Job:
        """Cancel: at once where nothing runs, else as a wish. Raises Conflict in a final state."""
        return self._verb("cancel", job_id, key)

    def pause(self, job_id: str, *, key: str | None = None) -> Job:
        """Pause: at once where nothing runs, else as a wish.

        Raises Conflict in a paused or final state, and while a cancel is asked.
        """
        return self._verb("pause", job_id, key)

    def resume(self, job_id: str, *, key: str | None = None) -> Job:
        """Queue a paused job again. Raises Conflict in any other state."""
        return self._verb("resume", job_id, key)

    def retry(self, job_id: str, *, key: str | None = None) -> Job:
        """Queue a failed or canceled job again, with all its failures forgiven.

        Its deadline starts anew. Raises Conflict in any other state, or while a job that it waits
        for is failed or canceled.
        """
        return self._verb("retry", job_id, key)

    def get(self, job_id: str) -> Job:
        """One job, with `jobs_ahead` while it is queued."""
        ahead, fields = self._redis.run("get", job_id)
        return _job(_fields(fields), jobs_ahead=ahead)

    def list(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        label: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> tuple[Jobs, str | None]:
        """A page of jobs, newest first, and the cursor of the next page (None: this is the last).

        `label` is `key=value`, or `key` for any value. Raises InvalidInput for a cursor that no
        page gave.
        """
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
            raise InvalidInput(f"{cursor!r} is not a cursor: take `next_cursor` of the page before")
        filters = {"state": state, "kind": kind, "label": label}
        indexes = [self._redis.keys.key(name, value) for name, value in filters.items() if value]
        indexes = indexes or [self._redis.keys.key("all")]
        # One job more than asked for shows whether there is a next page.
        before: str | None = "+inf" if cursor is None else f"({cursor}"
        found: list[Fields] = []
        while before and len(found) <= limit:
            before, page = self._redis.run(
                "list", before, limit + 1 - len(found), BATCH, keys=indexes
            )
            found += map(_fields, page)
        more = len(found) > limit
        return [_job(f) for f in found[:limit]], found[limit - 1]["sequence"] if more else None

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with redis_errors(), self._redis.client.pipeline(transaction=False) as pipeline:
            for state in JobState:
                pipeline.zcard(self._redis.keys.key("state", state))
            return dict(zip(JobState, pipeline.execute(), strict=True))

    def oldest(self) -> dict[JobState, datetime | None]:
        """When the oldest job in each state that is not final was submitted; None without one."""
        key = self._redis.keys.key
        states = [state for state in JobState if state not in FINAL_STATES]
        with redis_errors(), self._redis.client.pipeline(transaction=False) as pipeline:
            for state in states:
                pipeline.zrange(key("state", state), 0, 0)
            firsts = [ids[0] if ids else "" for ids in pipeline.execute()]
            for job_id in firsts:
                pipeline.hget(key("job", job_id), "created_at")
            times = pipeline.execute()
        return {
            state: EPOCH + timedelta(milliseconds=int(at)) if at else None
            for state, at in zip(states, times, strict=True)
        }

    def tally(self) -> Tally:
        """What has been counted so far."""
        with redis_errors():
            counts: Any = self._redis.client.hgetall(self._redis.keys.key("tally"))
        lease_expiries = int(counts.pop("lease_expiries", 0))
        attempts = {}
        for name, number in counts.items():
            _, kind, outcome = name.split()
            attempts[JobKind(kind), Outcome(outcome)] = int(number)
        return Tally(attempts, lease_expiries)

    # What dispatchers do

    def ready(self, limit: int = 100) -> Jobs:
        """The jobs that may be leased now, by priority, then age.

        Also lets retries that are due in, and cancels jobs that are past their deadline.
        """
        return [_job(_fields(fields)) for fields in self._redis.run("ready", limit, BATCH)]

    def wait_for_work(self, timeout_s: float) -> None:
        """Wait until something became leasable, a stop was asked or a place became free.

        Returns after `timeout_s` at the latest. What happened since the last call counts, so
        nothing is missed between two calls. For one thread of a process.
        """
        wake = self._redis.keys.key("wake")
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0:
            block_ms = max(1, _ms(min(left_s, BLOCK_S)))
            with redis_errors():
                streams: Any = self._redis.client.xread({wake: self._woken}, block=block_ms)
            if streams:
                self._woken = streams[0][1][-1][0]
                return

    def set_reason(self, job_id: str, reason: str | None) -> None:
        """Say what a ready job waits for; nothing happens to a job that is not ready."""
        self._redis.run("set_reason", job_id, reason or "")

    def lease(self, job_id: str, *, owner: str, ttl_s: float) -> Job | None:
        """Take a ready job: it is `starting`, and the caller's. None if somebody was faster."""
        fields = self._redis.run("lease", job_id, owner, _ms(ttl_s))
        return _job(_fields(fields)) if fields else None

    def begin(self, job_id: str, *, owner: str, number: int) -> Job:
        """Record attempt `number`, which the caller has claimed in the store.

        Raises StaleToken when the lease is not the caller's or the number is not above all
        before; Conflict when another attempt is under way.
        """
        return self._job("begin", job_id, owner, number)

    def renew(self, job_ids: Iterable[str], *, owner: str, ttl_s: float) -> set[str]:
        """Extend the caller's leases to `ttl_s` from now; returns the jobs that are still its own.

        A lease that has ended is still its owner's until somebody adopts the job.
        """
        return set(self._redis.run("renew", owner, _ms(ttl_s), *job_ids))

    def adopt(self, *, owner: str, ttl_s: float) -> Jobs:
        """Take over active jobs whose leases have ended; their attempts go on undisturbed."""
        jobs = self._redis.run("adopt", owner, _ms(ttl_s), BATCH)
        return [_job(_fields(fields)) for fields in jobs]

    def release(self, job_ids: Iterable[str], *, owner: str) -> None:
        """Let go of the caller's leases, so that another dispatcher adopts the jobs at once."""
        self._redis.run("release", owner, *job_ids)

    def active(self) -> Jobs:
        """Every job that is starting or running."""
        keys = self._redis.keys
        with redis_errors(), self._redis.client.pipeline(transaction=False) as pipeline:
            for job_id in self._redis.client.zrange(keys.key("leases"), 0, -1):
                pipeline.hgetall(keys.key("job", str(job_id)))
            jobs = [_job(fields) for fields in pipeline.execute()]
        return [job for job in jobs if job.state in ACTIVE_STATES]

    # What attempts say, and what is said about them

    def heartbeat(
        self, job_id: str, token: int, progress: Progress | None = None
    ) -> StopRequest | Literal["interrupt"] | None:
        """The attempt lives (the first one makes the job `running`); returns what it should do.

        Raises StaleToken when the attempt is not under way any more: it must stop.
        """
        data = "" if progress is None else progress.model_dump_json(exclude_none=True)
        answer = self._redis.run("heartbeat", job_id, token, data)
        if answer == "interrupt":
            return "interrupt"
        return answer and StopRequest(answer)

    def heartbeat_age_s(self, job_id: str) -> float | None:
        """Seconds since the newest attempt's last heartbeat; None before its first."""
        age_ms = self._redis.run("heartbeat_age", job_id)
        return None if age_ms is None else age_ms / 1000

    def interrupt(self, job_id: str, token: int) -> None:
        """The attempt got SIGTERM from outside: its next heartbeat answers "interrupt".

        Raises StaleToken when the attempt is not under way.
        """
        self._redis.run("interrupt", job_id, token)

    def finish(
        self,
        job_id: str,
        token: int,
        outcome: Outcome,
        *,
        error: str | None = None,
        result: dict[str, Any] | None = None,
        owner: str | None = None,
    ) -> Job:
        """An attempt has ended; the job goes where the outcome leads.

        CRASHED is tried again after a backoff until `max_attempts` have crashed; INTERRUPTED is
        queued at once. Both meet a cancel or pause that was asked. Saying the same again changes
        nothing. Raises StaleToken when the attempt is not under way. Token 0 ends a lease that
        has no attempt yet; only its `owner` may.
        """
        return self._job(
            "finish",
            job_id,
            token,
            outcome,
            (error or "")[:MAX_ERROR_CHARS].encode(errors="replace").decode(),
            "" if result is None else to_json(result, inf_nan_mode="null").decode(),
            owner or "",
            self._jitter.random(),
            _ms(self._retry_base_s),
            _ms(self._retry_max_s),
        )

    def _verb(self, verb: str, job_id: str, key: str | None) -> Job:
        return self._job(verb, job_id, f"{verb} {key}" if key else "")

    def _job(self, script: str, *args: str | float) -> Job:
        return _job(_fields(self._redis.run(script, *args)))

    def _indexes(self, submission: JobSubmission) -> Sequence[str]:
        """The indexes that list a job, its state's apart."""
        key = self._redis.keys.key
        names = [key("all"), key("kind", submission.kind)]
        for name, value in submission.labels.items():
            names += key("label", name), key("label", f"{name}={value}")
        return names


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _fields(flat: list[str]) -> Fields:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _job(fields: Fields, *, jobs_ahead: int | None = None) -> Job:
    attempts = [json.loads(text) for name, text in fields.items() if name.startswith("attempt:")]
    return Job.model_validate(
        {
            **fields,
            **json.loads(fields["submission"]),
            "after": json.loads(fields["after"]),
            "attempts": sorted(attempts, key=lambda attempt: int(attempt["number"])),
            "progress": json.loads(fields.get("progress", "{}")),
            "result": json.loads(fields.get("result", "null")),
            "jobs_ahead": jobs_ahead,
        }
    )
