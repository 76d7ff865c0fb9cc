"""What the queue's tests by example share: a submit, a start, and Redis's time."""

from __future__ import annotations

from typing import Any

from shared.queue.connection import Connection
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import Job, JobSubmission

DISPATCHER = "dispatcher-a"


def submit(queue: JobQueue, job_id: str, **fields: Any) -> Job:
    fields = {"kind": "train", "spec": {"dataset": "digits", "list": [], "dict": {}}} | fields
    return queue.submit(job_id, JobSubmission.model_validate(fields), owner="user")[0]


def start(queue: JobQueue, job_id: str, number: int = 1, *, owner: str = DISPATCHER) -> None:
    """The job's attempt `number` is under way and has said so."""
    queue.ready()
    assert queue.lease(job_id, owner=owner, ttl_s=60)
    queue.begin(job_id, owner=owner, number=number)
    queue.heartbeat(job_id, number)


def redis_ms(connection: Connection) -> int:
    time: Any = connection.client.time()
    return int(time[0]) * 1000 + int(time[1]) // 1000
