"""Events leave Redis in parts: none is lost, none comes twice, whoever archives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from services.dispatcher.archive import PART_EVENTS, EventArchive
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import JobState
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from tests.dispatching import submit


@pytest.fixture
def archive(settings: Settings, object_store: ObjectStore) -> EventArchive:
    return another(settings)


def another(settings: Settings) -> EventArchive:
    """The archive as another dispatcher holds it."""
    return EventArchive(
        JobQueue.from_settings(settings),
        EventLog.from_settings(settings),
        ObjectStore.from_settings(settings),
    )


def report(events: EventLog, first: int, num: int) -> None:
    for step in range(first, first + num):
        events.append("job-a", EventType.METRIC, {"step": step})


def told(archive: EventArchive) -> list[Event]:
    """Every event, as a reader finds them: parts first, Redis second."""
    return list(
        {event.id: event for event in reversed(list(archive.newest_first("job-a")))}.values()
    )


def parts(store: ObjectStore) -> list[int]:
    """The number of events in each part."""
    found = store.list(keys.events_prefix("job-a"))
    return [len(store.get(info.key).splitlines()) for info in found]


def test_a_part_is_written_once_enough_events_wait(
    archive: EventArchive, object_store: ObjectStore, job_queue: JobQueue, event_log: EventLog
) -> None:
    submit(job_queue, "job-a")
    report(event_log, 0, PART_EVENTS // 2)
    archive.pack("job-a")
    assert parts(object_store) == []
    report(event_log, PART_EVENTS // 2, PART_EVENTS)
    archive.pack("job-a")
    archive.pack("job-a")
    assert parts(object_store) == [PART_EVENTS]
    assert len(event_log.read("job-a", limit=10_000)) == PART_EVENTS // 2 + 2
    steps = [event.data["step"] for event in told(archive) if event.type is EventType.METRIC]
    assert steps == list(range(PART_EVENTS // 2 + PART_EVENTS))


def test_an_ended_job_is_archived_whole_and_again_after_a_retry(
    archive: EventArchive, object_store: ObjectStore, job_queue: JobQueue, event_log: EventLog
) -> None:
    submit(job_queue, "job-a")
    report(event_log, 0, 10)
    archive.close("job-a")
    assert parts(object_store) == []  # it has not ended
    job_queue.cancel("job-a")
    before = told(archive)
    archive.close("job-a")
    archive.close("job-a")
    assert parts(object_store) == [len(before)]
    assert told(archive) == before
    event_log.append("job-a", EventType.LOG, {"line": "a late word"})
    archive.close("job-a")
    job_queue.retry("job-a")
    job_queue.cancel("job-a")
    archive.close("job-a")
    assert parts(object_store) == [len(before), 1, 3]
    assert [e.type for e in told(archive)][-5:] == ["done", "log", "state", "state", "done"]


def test_two_dispatchers_may_archive_the_same_job_at_once(
    settings: Settings, object_store: ObjectStore, job_queue: JobQueue, event_log: EventLog
) -> None:
    submit(job_queue, "job-a")
    report(event_log, 0, PART_EVENTS + 100)
    job_queue.cancel("job-a")
    archives = [another(settings) for _ in range(4)]
    before = told(archives[0])
    with ThreadPoolExecutor(len(archives)) as pool:
        list(pool.map(lambda one: one.close("job-a"), archives))
    assert told(archives[0]) == before
    assert sum(parts(object_store)) == len(before)


def test_what_nobody_has_archived_is_swept_up(
    archive: EventArchive, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    """A job that was canceled in the queue has never had a dispatcher."""
    for i in range(60):
        submit(job_queue, f"job-{i}")
        job_queue.cancel(f"job-{i}")
    archive.sweep()
    archive.sweep()
    for i in range(60):
        assert list(object_store.list(keys.events_prefix(f"job-{i}")))
    assert job_queue.counts()[JobState.CANCELED] == 60
