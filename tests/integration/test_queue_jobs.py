"""The queue by example: what each call says, and what each refusal says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import (
    Conflict,
    IdempotencyClash,
    InvalidInput,
    NotFound,
    Unavailable,
)
from shared.queue.connection import Connection
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import (
    Job,
    JobKind,
    JobState,
    JobSubmission,
    Outcome,
)
from tests.queueing import DISPATCHER, redis_ms, start, submit

# Submit


def test_a_job_comes_back_as_it_was_submitted(queue: JobQueue) -> None:
    given = JobSubmission(
        kind=JobKind.TRAIN,
        spec={"dataset": "digits", "list": [], "dict": {}, "text": 'ümlaut "/\\ \n %s'},
        name="a name",
        priority=7,
        labels={"team": "a", "stage": ""},
        max_attempts=2,
        deadline_s=60.5,
    )
    job, new = queue.submit("job-a", given, owner="user", body_sha256="sha")
    assert new
    assert job.state is JobState.QUEUED
    assert job.owner == "user"
    assert job.model_dump(include=set(JobSubmission.model_fields)) == given.model_dump()
    assert (job.token, job.num_failures, job.attempts) == (0, 0, [])
    assert job.created_at == job.updated_at
    assert queue.get("job-a") == job.model_copy(update={"jobs_ahead": 0})


def test_a_repeated_submit_finds_the_first(queue: JobQueue) -> None:
    submission = JobSubmission(kind=JobKind.TRAIN, spec={})
    queue.submit("job-a", submission, owner="user", body_sha256="sha")
    queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    job, new = queue.submit("job-a", submission, owner="user", body_sha256="sha")
    assert not new
    assert job.state is JobState.STARTING
    with pytest.raises(IdempotencyClash, match="job job-a was submitted with another body"):
        queue.submit("job-a", submission, owner="user", body_sha256="other")


def test_many_submits_of_one_job_at_once_make_one(queue: JobQueue) -> None:
    def submit_it(_: int) -> bool:
        return queue.submit("job-a", JobSubmission(kind=JobKind.TRAIN, spec={}), owner="user")[1]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit_it, range(50))) == 1
    assert queue.counts()[JobState.QUEUED] == 1


def test_a_full_queue_says_when_to_come_again(queue: JobQueue) -> None:
    for i in range(50):
        submit(queue, f"job-{i}")
    with pytest.raises(Unavailable, match=r"the queue is full \(50 jobs\)") as caught:
        submit(queue, "job-50")
    assert caught.value.retry_after_s
    submit(queue, "job-0")  # known: nothing is added
    queue.lease("job-0", owner=DISPATCHER, ttl_s=60)
    submit(queue, "job-50")


# Order


def test_priority_comes_first_then_age(queue: JobQueue) -> None:
    for job_id, priority in [("a", 0), ("b", 100), ("c", -100), ("d", 100), ("e", 0)]:
        submit(queue, job_id, priority=priority)
    assert [job.id for job in queue.ready()] == ["b", "d", "a", "e", "c"]
    assert [job.id for job in queue.ready(limit=2)] == ["b", "d"]
    assert queue.get("e").jobs_ahead == 3
    queue.lease("b", owner=DISPATCHER, ttl_s=60)
    assert queue.get("e").jobs_ahead == 2
    assert queue.get("b").jobs_ahead is None


def test_order_is_exact_beyond_the_precision_of_lua_text(
    queue: JobQueue, connection: Connection
) -> None:
    connection.client.set(connection.keys.key("sequence"), 2**45 - 10)
    for i in range(9):
        submit(queue, f"job-{i}", priority=-100)
    assert [job.id for job in queue.ready()] == [f"job-{i}" for i in range(9)]
    assert queue.get("job-8").jobs_ahead == 8
    assert [job.id for job in queue.list()[0]] == [f"job-{i}" for i in reversed(range(9))]


def test_one_of_many_dispatchers_gets_a_job(queue: JobQueue) -> None:
    submit(queue, "job-a")
    barrier = threading.Barrier(8)

    def lease(number: int) -> Job | None:
        barrier.wait()
        return queue.lease("job-a", owner=f"dispatcher-{number}", ttl_s=60)

    with ThreadPoolExecutor(8) as pool:
        assert sum(job is not None for job in pool.map(lease, range(8))) == 1


def test_a_reason_is_told_once(queue: JobQueue) -> None:
    submit(queue, "job-a")
    queue.set_reason("job-a", "waits for 2 devices")
    before = queue.get("job-a")
    assert before.reason == "waits for 2 devices"
    queue.set_reason("job-a", "waits for 2 devices")
    assert queue.get("job-a") == before
    leased = queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    assert leased is not None
    assert leased.reason is None
    queue.set_reason("job-a", "too late")
    assert queue.get("job-a").reason is None


# Lists


def test_lists_filter_and_page_newest_first(queue: JobQueue) -> None:
    for i in range(12):
        submit(
            queue,
            f"job-{i:02}",
            kind="train" if i % 2 else "sample",
            labels={"team": "a" if i % 3 else "b"},
        )
    queue.cancel("job-03")
    assert [job.id for job in queue.list(limit=2)[0]] == ["job-11", "job-10"]
    assert {job.id for job in queue.list(state=JobState.CANCELED)[0]} == {"job-03"}
    assert len(queue.list(kind=JobKind.TRAIN)[0]) == 6
    assert len(queue.list(label="team")[0]) == 12
    assert queue.list(label="nothing") == ([], None)
    both, _ = queue.list(kind=JobKind.TRAIN, label="team=b", state=JobState.QUEUED)
    assert [job.id for job in both] == ["job-09"]

    pages, cursor = [], None
    while True:
        page, cursor = queue.list(kind=JobKind.SAMPLE, label="team=a", cursor=cursor, limit=2)
        pages.append([job.id for job in page])
        if cursor is None:
            break
    assert pages == [["job-10", "job-08"], ["job-04", "job-02"]]


def test_a_page_holds_while_jobs_come(queue: JobQueue) -> None:
    for i in range(4):
        submit(queue, f"job-{i}")
    page, cursor = queue.list(limit=2)
    submit(queue, "job-4")
    assert [job.id for job in page + queue.list(cursor=cursor)[0]] == [
        "job-3",
        "job-2",
        "job-1",
        "job-0",
    ]


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1 2", "+inf", "²"])
def test_a_strange_cursor_is_refused(queue: JobQueue, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="is not a cursor"):
        queue.list(cursor=cursor)


def test_counts_and_active(queue: JobQueue) -> None:
    for job_id in ("a", "b", "c"):
        submit(queue, job_id)
    start(queue, "a")
    queue.lease("b", owner=DISPATCHER, ttl_s=60)
    assert {job.id: job.state for job in queue.active()} == {"a": "running", "b": "starting"}
    counts = queue.counts()
    assert counts[JobState.RUNNING] == counts[JobState.STARTING] == counts[JobState.QUEUED] == 1
    assert sum(counts.values()) == 3


# After


def test_a_job_waits_for_those_before_it(queue: JobQueue) -> None:
    submit(queue, "a")
    submit(queue, "b")
    job = submit(queue, "c", after=["a", "b"])
    assert job.reason == "waits for job a"
    start(queue, "a")
    queue.finish("a", 1, Outcome.SUCCEEDED)
    assert queue.get("c").reason == "waits for job b"
    assert [job.id for job in queue.ready()] == ["b"]
    start(queue, "b")
    queue.finish("b", 1, Outcome.SUCCEEDED)
    assert queue.get("c").reason is None
    assert [job.id for job in queue.ready()] == ["c"]


def test_a_chain_of_jobs_ends_with_its_first(queue: JobQueue) -> None:
    submit(queue, "job-0")
    for i in range(1, 40):
        submit(queue, f"job-{i}", after=[f"job-{i - 1}"])
    queue.pause("job-7")
    queue.cancel("job-0")
    assert queue.counts()[JobState.CANCELED] == 40
    assert queue.get("job-39").reason == "job job-38, which it waited for, is canceled"
    late = submit(queue, "job-40", after=["job-39"])
    assert late.state is JobState.CANCELED
    assert late.reason == "job job-39, which it waited for, is canceled"
    with pytest.raises(Conflict, match=r"waits for job job-38, which is canceled: retry that one"):
        queue.retry("job-39")
    queue.retry("job-0")
    assert queue.retry("job-1").reason == "waits for job job-0"


def test_a_verb_that_is_repeated_under_its_key_acts_once(queue: JobQueue) -> None:
    submit(queue, "job-a")
    queue.pause("job-a", key="k1")
    assert queue.resume("job-a", key="k2").state is JobState.QUEUED
    with pytest.raises(Conflict):
        queue.resume("job-a")
    assert queue.resume("job-a", key="k2") == queue.get("job-a").model_copy(
        update={"jobs_ahead": None}
    )
    # Another verb under the same key is another request.
    assert queue.cancel("job-a", key="k2").state is JobState.CANCELED
    assert queue.cancel("job-a", key="k2").state is JobState.CANCELED
    assert queue.retry("job-a", key="k3").state is JobState.QUEUED
    start(queue, "job-a")
    assert queue.retry("job-a", key="k3").state is JobState.RUNNING
    with pytest.raises(Conflict):
        queue.retry("job-a", key="k4")


def test_one_canceled_job_of_many_is_enough(queue: JobQueue) -> None:
    submit(queue, "waits")
    submit(queue, "canceled")
    submit(queue, "early", after=["waits", "canceled"])
    queue.cancel("canceled")
    late = submit(queue, "late", after=["waits", "canceled"])
    assert queue.get("early").state is late.state is JobState.CANCELED
    assert queue.get("early").reason == late.reason
    assert queue.get("late") == late
    with pytest.raises(Conflict, match="retry that one first"):
        queue.retry("late")


def test_an_unknown_job_in_after_is_refused(queue: JobQueue) -> None:
    with pytest.raises(InvalidInput, match="there is no job nobody to wait for"):
        submit(queue, "job-a", after=["nobody"])
    with pytest.raises(NotFound):
        queue.get("job-a")


@pytest.mark.parametrize("call", ["get", "cancel", "pause", "resume", "retry", "heartbeat_age_s"])
def test_an_unknown_job_is_not_found(queue: JobQueue, call: str) -> None:
    with pytest.raises(NotFound, match="there is no job nobody"):
        getattr(queue, call)("nobody")


def test_time_never_goes_back(queue: JobQueue, connection: Connection) -> None:
    later_ms = redis_ms(connection) + 3_600_000
    connection.client.set(connection.keys.key("clock"), later_ms)
    job = submit(queue, "job-a")
    assert job.created_at.timestamp() * 1000 >= later_ms - 1
    queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    lease_end = connection.client.zscore(connection.keys.key("leases"), "job-a")
    assert lease_end is not None
    assert lease_end >= later_ms + 60_000


# Waiting


def test_a_dispatcher_is_woken_by_work(queue: JobQueue) -> None:
    submit(queue, "job-a")
    queue.wait_for_work(600)  # what happened before counts
    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(queue.wait_for_work, 600)
        submit(queue, "job-b")
        woken.result(timeout=60)
        start(queue, "job-b")
        woken = pool.submit(queue.wait_for_work, 600)
        queue.cancel("job-b")  # a stop was asked
        woken.result(timeout=60)
        woken = pool.submit(queue.wait_for_work, 600)
        queue.finish("job-b", 1, Outcome.CANCELED)  # a place is free
        woken.result(timeout=60)


def test_two_dispatchers_are_both_woken(queue: JobQueue, connection: Connection) -> None:
    other = JobQueue(connection, max_queued_jobs=50, retry_base_s=0, retry_max_s=0)
    submit(queue, "job-a")
    queue.wait_for_work(600)
    other.wait_for_work(600)
