"""The event log: written with the transitions, fenced, followed from anywhere to its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.errors import NotFound, StaleToken
from shared.queue.connection import Connection
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import JobKind, JobSubmission, Outcome
from tests.queueing import DISPATCHER


@pytest.fixture
def log(connection: Connection) -> EventLog:
    return EventLog(connection)


def submit(queue: JobQueue, job_id: str = "job-a") -> None:
    queue.submit(job_id, JobSubmission(kind=JobKind.TRAIN, spec={}), owner="user")


def start(queue: JobQueue, number: int = 1, job_id: str = "job-a") -> None:
    assert queue.lease(job_id, owner=DISPATCHER, ttl_s=60)
    queue.begin(job_id, owner=DISPATCHER, number=number)
    queue.heartbeat(job_id, number)


def told(events: list[Event]) -> list[tuple[str, Any]]:
    return [(e.type, e.data.get("state", e.data.get("line"))) for e in events]


async def collect(log: EventLog, after: str | None = None) -> list[Event]:
    return [event async for event in log.follow("job-a", after=after) if event is not None]


def test_each_transition_tells_of_itself(queue: JobQueue, log: EventLog) -> None:
    submit(queue)
    start(queue)
    queue.pause("job-a")
    queue.pause("job-a")
    queue.finish("job-a", 1, Outcome.PAUSED)
    queue.resume("job-a")
    start(queue, 2)
    queue.finish("job-a", 2, Outcome.SUCCEEDED, result={"model": "m", "version": 1})
    events = log.read("job-a")
    pause = {"reason": "a pause was asked", "attempt": 1}
    assert [event.data for event in events] == [
        {"state": "queued", "reason": None, "attempt": None},
        {"state": "starting", "reason": None, "attempt": None},
        {"state": "starting", "reason": None, "attempt": 1},
        {"state": "running", "reason": None, "attempt": 1},
        {"state": "running", "stop_requested": "pause"} | pause,
        {"state": "paused"} | pause,
        {"state": "queued", "reason": None, "attempt": 1},
        {"state": "starting", "reason": None, "attempt": 1},
        {"state": "starting", "reason": None, "attempt": 2},
        {"state": "running", "reason": None, "attempt": 2},
        {"state": "succeeded", "reason": None, "attempt": 2},
        {"state": "succeeded", "result": {"model": "m", "version": 1}},
    ]
    assert [event.type for event in events] == [EventType.STATE] * 11 + [EventType.DONE]
    assert abs(events[0].at - queue.get("job-a").created_at) < timedelta(seconds=60)


def test_a_refused_call_tells_nothing(queue: JobQueue, log: EventLog) -> None:
    submit(queue)
    before = log.read("job-a")
    with pytest.raises(StaleToken):
        queue.heartbeat("job-a", 1)
    submit(queue)
    assert log.read("job-a") == before


def test_events_are_read_in_order_and_in_pages(queue: JobQueue, log: EventLog) -> None:
    submit(queue)
    start(queue)
    written = log.append_many(
        "job-a",
        [(EventType.METRIC, {"kimg": i / 2, "loss_d": float("nan")}) for i in range(5)],
        token=1,
    )
    written.append(log.append("job-a", EventType.LOG, {"line": 'ü "\n', "stream": "err"}, token=1))
    events = log.read("job-a", after=log.read("job-a", limit=4)[-1].id)
    assert [event.id for event in events] == written
    assert events[1].data == {"kimg": 0.5, "loss_d": None}
    assert events[-1].data == {"line": 'ü "\n', "stream": "err"}
    assert [event.id for event in log.read("job-a", after=written[1], limit=2)] == written[2:4]
    assert log.read("job-a", after=written[-1]) == []
    assert log.read("nobody") == []


def test_an_older_attempt_cannot_speak(queue: JobQueue, log: EventLog) -> None:
    submit(queue)
    start(queue)
    queue.finish("job-a", 1, Outcome.INTERRUPTED)
    start(queue, 2)
    with pytest.raises(StaleToken, match="attempt 1 of job job-a is not under way"):
        log.append("job-a", EventType.LOG, {"line": "x"}, token=1)
    log.append("job-a", EventType.LOG, {"line": "from the dispatcher"})
    with pytest.raises(NotFound, match="there is no job nobody"):
        log.append("nobody", EventType.LOG, {"line": "x"})


def test_following_tells_what_was_and_what_comes_and_ends(queue: JobQueue, log: EventLog) -> None:
    submit(queue)

    async def follow() -> list[Event]:
        events = []
        async for event in log.follow("job-a"):
            assert event is not None
            events.append(event)
            if event.data.get("state") == "queued":
                await asyncio.to_thread(start, queue)
            if event.data.get("state") == "running":
                await asyncio.to_thread(log.append, "job-a", EventType.LOG, {"line": "1"}, token=1)
            if event.data.get("line"):
                await asyncio.to_thread(queue.finish, "job-a", 1, Outcome.SUCCEEDED)
                await asyncio.to_thread(log.append, "job-a", EventType.LOG, {"line": "late"})
        return events

    events = asyncio.run(asyncio.wait_for(follow(), 60))
    assert told(events) == [
        ("state", "queued"),
        ("state", "starting"),
        ("state", "starting"),
        ("state", "running"),
        ("log", "1"),
        ("state", "succeeded"),
        ("done", "succeeded"),
    ]


def test_following_resumes_anywhere_and_ends_at_once_behind_the_end(
    queue: JobQueue, log: EventLog
) -> None:
    submit(queue)
    start(queue)
    queue.finish("job-a", 1, Outcome.FAILED, error="bad data")
    events = log.read("job-a")
    for i, event in enumerate(events):
        assert asyncio.run(asyncio.wait_for(collect(log, event.id), 60)) == events[i + 1 :]


def test_following_goes_on_behind_an_end_that_was_retried(queue: JobQueue, log: EventLog) -> None:
    submit(queue)
    queue.cancel("job-a")
    queue.retry("job-a")

    async def follow() -> list[Event]:
        events = []
        async for event in log.follow("job-a"):
            assert event is not None
            events.append(event)
            if len(events) == 4:  # queued again: it was not over behind the first `done`
                await asyncio.to_thread(queue.cancel, "job-a")
        return events

    events = asyncio.run(asyncio.wait_for(follow(), 60))
    assert told(events) == [("state", "queued"), ("state", "canceled"), ("done", "canceled")] * 2
    assert asyncio.run(asyncio.wait_for(collect(log), 60)) == events


def test_silence_is_told(queue: JobQueue, connection: Connection) -> None:
    log = EventLog(connection, silence_s=0.05)
    submit(queue)

    async def follow() -> list[Event | None]:
        events: list[Event | None] = []
        async for event in log.follow("job-a"):
            events.append(event)
            if event is None and len(events) == 3:
                queue.cancel("job-a")
        return events

    events = asyncio.run(asyncio.wait_for(follow(), 60))
    assert events[1:3] == [None, None]
    assert told([event for event in events if event]) == [
        ("state", "queued"),
        ("state", "canceled"),
        ("done", "canceled"),
    ]


def test_archived_events_leave_redis(
    queue: JobQueue, log: EventLog, connection: Connection
) -> None:
    submit(queue)
    start(queue)
    events = log.read("job-a")
    log.trim("job-a", events[2].id)
    assert log.read("job-a") == events[2:]
    stream = connection.keys.key("events", "job-a")
    log.expire("job-a", 1000)
    assert connection.client.ttl(stream) == -1  # it still runs
    queue.finish("job-a", 1, Outcome.FAILED)
    log.expire("job-a", 1000)
    assert connection.client.ttl(stream) > 0
    queue.retry("job-a")
    assert connection.client.ttl(stream) == -1
