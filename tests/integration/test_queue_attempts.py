"""Leases, attempts and wishes by example: who may do what to an active job, and what it says."""

from __future__ import annotations

import pytest

from shared.errors import (
    Conflict,
    StaleToken,
)
from shared.queue.connection import Connection
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import (
    JobState,
    Outcome,
    Progress,
    StopRequest,
)
from tests.queueing import DISPATCHER, redis_ms, start, submit

# Attempts


def test_the_life_of_an_undisturbed_job(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    assert queue.heartbeat("job-a", 1, Progress(kimg=1.5, of=10)) is None
    job = queue.get("job-a")
    assert job.progress == Progress(kimg=1.5, of=10)
    assert (job.state, job.attempts[0].state) == (JobState.RUNNING, "running")
    age_s = queue.heartbeat_age_s("job-a")
    assert age_s is not None
    assert age_s >= 0
    job = queue.finish("job-a", 1, Outcome.SUCCEEDED, result={"model": "m", "nan": float("nan")})
    assert job.result == {"model": "m", "nan": None}
    assert (job.attempts[0].state, job.attempts[0].outcome) == ("ended", Outcome.SUCCEEDED)
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.created_at <= job.started_at <= job.ended_at


def test_the_age_of_a_heartbeat_begins_with_the_first(queue: JobQueue) -> None:
    submit(queue, "job-a")
    assert queue.heartbeat_age_s("job-a") is None
    start(queue, "job-a")
    assert queue.heartbeat_age_s("job-a") is not None
    queue.finish("job-a", 1, Outcome.INTERRUPTED)
    queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    queue.begin("job-a", owner=DISPATCHER, number=2)
    assert queue.heartbeat_age_s("job-a") is None


def test_a_crashed_attempt_is_tried_again_until_none_is_left(queue: JobQueue) -> None:
    submit(queue, "job-a", max_attempts=2)
    start(queue, "job-a")
    job = queue.finish("job-a", 1, Outcome.CRASHED, error="out of memory")
    assert (job.state, job.num_failures) == (JobState.QUEUED, 1)
    assert job.reason == "1 of 2 attempts crashed, next try in 0.0 s: out of memory"
    start(queue, "job-a", 5)
    job = queue.finish("job-a", 5, Outcome.CRASHED)
    assert job.state is JobState.FAILED
    assert job.reason == "2 of 2 attempts crashed: no error was given"
    assert [a.error for a in job.attempts] == ["out of memory", None]
    job = queue.retry("job-a")
    assert (job.state, job.num_failures, job.token) == (JobState.QUEUED, 0, 5)
    assert (job.ended_at, job.result, job.reason) == (None, None, None)


def test_a_crash_is_tried_again_later_and_later(queue: JobQueue, connection: Connection) -> None:
    submit(queue, "job-a", max_attempts=20)
    for delay_s in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
        now_ms = redis_ms(connection)
        # The script itself, with the most that the jitter can be: 1 s, doubled, at most 5 s.
        connection.run("finish", "job-a", 0, "crashed", "", "", DISPATCHER, 1.0, 1000, 5000)
        reason = queue.get("job-a").reason
        assert reason is not None
        assert f"next try in {delay_s} s" in reason
        assert queue.lease("job-a", owner=DISPATCHER, ttl_s=60) is None
        due_ms = connection.client.zscore(connection.keys.key("delayed"), "job-a")
        assert due_ms is not None
        assert now_ms <= due_ms - delay_s * 1000 <= redis_ms(connection)
        connection.client.zadd(connection.keys.key("delayed"), {"job-a": 0})
        assert [job.id for job in queue.ready()] == ["job-a"]


def test_the_jitter_is_full(connection: Connection) -> None:
    queue = JobQueue(connection, max_queued_jobs=50, retry_base_s=1000, retry_max_s=1000)
    started_ms = redis_ms(connection)
    for i in range(40):
        submit(queue, f"job-{i}")
        queue.lease(f"job-{i}", owner=DISPATCHER, ttl_s=60)
        queue.finish(f"job-{i}", 0, Outcome.CRASHED, owner=DISPATCHER)
    delayed = connection.client.zrange(connection.keys.key("delayed"), 0, -1, withscores=True)
    dues_ms = [float(entry[1]) for entry in delayed]
    assert started_ms <= min(dues_ms) < max(dues_ms) <= redis_ms(connection) + 1_000_000


def test_an_interruption_is_no_failure(queue: JobQueue) -> None:
    submit(queue, "job-a", max_attempts=1)
    start(queue, "job-a")
    queue.interrupt("job-a", 1)
    assert queue.heartbeat("job-a", 1) == "interrupt"
    job = queue.finish("job-a", 1, Outcome.INTERRUPTED)
    assert (job.state, job.num_failures) == (JobState.QUEUED, 0)
    assert [job.id for job in queue.ready()] == ["job-a"]
    start(queue, "job-a", 2)
    assert queue.heartbeat("job-a", 2) is None


def test_the_same_end_may_be_told_twice(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    first = queue.finish("job-a", 1, Outcome.FAILED, error="bad data")
    assert first.reason == "bad data"
    assert queue.finish("job-a", 1, Outcome.FAILED, error="bad data") == first
    with pytest.raises(StaleToken, match="attempt 1 of job job-a is not under way"):
        queue.finish("job-a", 1, Outcome.SUCCEEDED)


def test_a_long_error_is_cut_and_broken_text_is_mended(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    job = queue.finish("job-a", 1, Outcome.FAILED, error="\udcff" + "x" * 10_000)
    assert job.reason is not None
    assert job.reason.startswith("?xxx")
    assert len(job.reason) == 4000


# Wishes


def test_a_wish_is_met_when_the_attempt_has_ended(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    assert queue.pause("job-a").stop_requested is StopRequest.PAUSE
    assert queue.heartbeat("job-a", 1) is StopRequest.PAUSE
    job = queue.finish("job-a", 1, Outcome.PAUSED)
    assert (job.state, job.stop_requested) == (JobState.PAUSED, None)
    assert job.reason == "a pause was asked"
    assert queue.resume("job-a").state is JobState.QUEUED


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.INTERRUPTED, Outcome.PAUSED])
def test_a_cancel_replaces_a_pause(queue: JobQueue, outcome: Outcome) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    queue.pause("job-a")
    assert queue.cancel("job-a").stop_requested is StopRequest.CANCEL
    job = queue.finish("job-a", 1, outcome)
    assert (job.state, job.reason) == (JobState.CANCELED, "a cancel was asked")


def test_a_job_that_succeeds_before_it_sees_the_cancel_has_succeeded(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    queue.cancel("job-a")
    assert queue.finish("job-a", 1, Outcome.SUCCEEDED).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("state", "call", "message"),
    [
        ("succeeded", "cancel", "job job-a is succeeded: it cannot be canceled"),
        ("canceled", "cancel", "job job-a is canceled: it cannot be canceled"),
        ("failed", "pause", "job job-a is failed: it cannot be paused"),
        ("paused", "pause", "job job-a is paused: it cannot be paused"),
        ("canceling", "pause", "job job-a is being canceled: it cannot be paused"),
        ("running", "resume", "job job-a is running: only a paused job can be resumed"),
        ("queued", "resume", "job job-a is queued: only a paused job can be resumed"),
        ("succeeded", "retry", "job job-a is succeeded: only a failed or canceled job can be"),
        ("paused", "retry", "job job-a is paused: only a failed or canceled job can be retried"),
    ],
)
def test_what_the_state_forbids_is_a_conflict(
    queue: JobQueue, state: str, call: str, message: str
) -> None:
    submit(queue, "job-a")
    if state in ("succeeded", "failed", "running", "canceling"):
        start(queue, "job-a")
    if state in ("succeeded", "failed"):
        queue.finish("job-a", 1, Outcome(state))
    if state in ("canceled", "canceling"):
        queue.cancel("job-a")
    if state == "paused":
        queue.pause("job-a")
    before = queue.get("job-a")
    with pytest.raises(Conflict, match=message):
        getattr(queue, call)("job-a")
    assert queue.get("job-a") == before


def test_a_deadline_cancels_what_waits_and_stops_what_runs(queue: JobQueue) -> None:
    submit(queue, "waits", deadline_s=0.001)
    submit(queue, "runs", deadline_s=0.001)
    submit(queue, "has-time", deadline_s=1000)
    queue.lease("runs", owner=DISPATCHER, ttl_s=60)
    queue.begin("runs", owner=DISPATCHER, number=1)
    while queue.get("waits").state is JobState.QUEUED or not queue.get("runs").stop_requested:
        queue.ready()
    assert queue.get("waits").state is JobState.CANCELED
    assert queue.get("waits").reason == "its deadline of 0.001 s has passed"
    assert queue.heartbeat("runs", 1) is StopRequest.CANCEL
    assert queue.finish("runs", 1, Outcome.CANCELED).reason == "its deadline of 0.001 s has passed"
    assert [job.id for job in queue.ready()] == ["has-time"]


# Leases and the fence


def test_a_lease_that_ends_is_adopted_and_the_attempt_goes_on(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    assert queue.adopt(owner="dispatcher-b", ttl_s=60) == []
    assert queue.renew(["job-a", "nothing"], owner=DISPATCHER, ttl_s=0.001) == {"job-a"}
    while not (adopted := queue.adopt(owner="dispatcher-b", ttl_s=60)):
        pass
    assert [(job.id, job.state, job.token) for job in adopted] == [("job-a", "running", 1)]
    assert queue.renew(["job-a"], owner=DISPATCHER, ttl_s=60) == set()
    assert queue.heartbeat("job-a", 1) is None
    with pytest.raises(StaleToken, match=r"is not leased by dispatcher-a: let go of it"):
        queue.begin("job-a", owner=DISPATCHER, number=2)


def test_a_lease_that_ended_is_its_owners_until_it_is_adopted(queue: JobQueue) -> None:
    submit(queue, "job-a")
    queue.lease("job-a", owner=DISPATCHER, ttl_s=0)
    assert queue.renew(["job-a"], owner=DISPATCHER, ttl_s=60) == {"job-a"}
    assert queue.adopt(owner="dispatcher-b", ttl_s=60) == []


def test_a_handover_is_immediate(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    queue.release(["job-a", "nothing"], owner="dispatcher-b")
    assert queue.adopt(owner="dispatcher-b", ttl_s=60) == []
    queue.release(["job-a"], owner=DISPATCHER)
    assert [job.id for job in queue.adopt(owner="dispatcher-b", ttl_s=60)] == ["job-a"]


def test_an_older_attempt_is_refused_everywhere(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a")
    queue.finish("job-a", 1, Outcome.INTERRUPTED)
    start(queue, "job-a", 2)
    message = r"attempt 1 .* \(state running, newest attempt 2\): it must stop"
    with pytest.raises(StaleToken, match=message):
        queue.heartbeat("job-a", 1)
    with pytest.raises(StaleToken, match=message):
        queue.interrupt("job-a", 1)
    with pytest.raises(StaleToken, match=message):
        queue.finish("job-a", 1, Outcome.SUCCEEDED)


def test_begin_takes_only_a_new_number_and_one_attempt_at_a_time(queue: JobQueue) -> None:
    submit(queue, "job-a")
    start(queue, "job-a", 3)
    assert queue.begin("job-a", owner=DISPATCHER, number=3).token == 3  # a missed answer
    with pytest.raises(Conflict, match="attempt 3 of job job-a is under way: finish it first"):
        queue.begin("job-a", owner=DISPATCHER, number=4)
    queue.finish("job-a", 3, Outcome.INTERRUPTED)
    queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    with pytest.raises(StaleToken, match="attempt 3 of job job-a is not newer than attempt 3"):
        queue.begin("job-a", owner=DISPATCHER, number=3)


def test_a_lease_without_an_attempt_is_ended_by_its_owner(queue: JobQueue) -> None:
    submit(queue, "job-a")
    queue.lease("job-a", owner=DISPATCHER, ttl_s=60)
    with pytest.raises(StaleToken, match="is not leased by dispatcher-b"):
        queue.finish("job-a", 0, Outcome.CRASHED, owner="dispatcher-b")
    job = queue.finish("job-a", 0, Outcome.CRASHED, owner=DISPATCHER, error="no number")
    assert (job.state, job.num_failures, job.attempts) == (JobState.QUEUED, 1, [])
    start(queue, "job-a")
    with pytest.raises(StaleToken, match="attempt 1 of job job-a is under way"):
        queue.finish("job-a", 0, Outcome.CRASHED, owner=DISPATCHER)
