"""What the queue counts, how old its jobs are, and the trace that a job belongs to."""

from __future__ import annotations

from datetime import timedelta

from shared.ids import new_job_id
from shared.queue.jobs import JobQueue, Tally
from shared.schemas.jobs import FINAL_STATES, JobKind, JobState, JobSubmission, Outcome
from tests.queueing import DISPATCHER, start, submit

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_attempt_is_counted_once_by_kind_and_end(queue: JobQueue) -> None:
    submit(queue, "job-a")
    submit(queue, "job-b", kind="ingest", spec={})
    for number in (1, 2):
        start(queue, "job-a", number)
        queue.finish("job-a", number, Outcome.CRASHED)
        queue.finish("job-a", number, Outcome.CRASHED)  # said again: nothing new
    start(queue, "job-b")
    queue.finish("job-b", 1, Outcome.SUCCEEDED)
    assert queue.tally().attempts == {
        (JobKind.TRAIN, Outcome.CRASHED): 2,
        (JobKind.INGEST, Outcome.SUCCEEDED): 1,
    }


def test_a_lease_that_nobody_let_go_of_has_expired(queue: JobQueue) -> None:
    assert queue.tally() == Tally({}, 0)
    for job_id in ("job-a", "job-b"):
        submit(queue, job_id)
        assert queue.lease(job_id, owner=DISPATCHER, ttl_s=60)
    queue.renew(["job-a"], owner=DISPATCHER, ttl_s=0)
    queue.release(["job-b"], owner=DISPATCHER)
    assert {job.id for job in queue.adopt(owner="other", ttl_s=60)} == {"job-a", "job-b"}
    assert queue.tally().lease_expiries == 1


def test_the_oldest_job_of_each_state_that_is_not_final(queue: JobQueue) -> None:
    assert queue.oldest() == dict.fromkeys(set(JobState) - FINAL_STATES)
    first = submit(queue, "job-a")
    second = submit(queue, "job-b")
    assert queue.oldest()[JobState.QUEUED] == first.created_at
    start(queue, "job-a")
    oldest = queue.oldest()
    assert (oldest[JobState.RUNNING], oldest[JobState.QUEUED]) == (
        first.created_at,
        second.created_at,
    )
    assert second.created_at - first.created_at < timedelta(minutes=1)
    assert oldest[JobState.PAUSED] is None


def test_a_job_keeps_the_trace_of_the_request_that_made_it(queue: JobQueue) -> None:
    job_id = new_job_id()
    submission = JobSubmission(kind=JobKind.SAMPLE, spec={})
    made, _ = queue.submit(job_id, submission, owner="user", traceparent=TRACE)
    known, is_new = queue.submit(job_id, submission, owner="user", traceparent="another")
    assert not is_new
    assert made.traceparent == known.traceparent == queue.get(job_id).traceparent == TRACE
