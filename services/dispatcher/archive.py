"""The events of a job leave Redis for object storage, in parts of JSON lines.

A part is written once (If-None-Match), then Redis is trimmed: whoever reads the parts first and
Redis second finds every event. Two dispatchers that archive the same job write the same part, or
one of them finds the other's and goes on behind it. What an event says is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.errors import PreconditionFailed
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import Event
from shared.schemas.jobs import FINAL_STATES, JobState
from shared.storage import keys
from shared.storage.objects import ObjectStore

PART_EVENTS = 2000
EXPIRE_S = 7 * 24 * 3600
"""How long Redis keeps the end of an archived job's events."""
SWEPT_JOBS = 50
"""Jobs of each final state in one sweep."""


class EventArchive:
    """The archive of one queue's events."""

    def __init__(self, queue: JobQueue, events: EventLog, store: ObjectStore) -> None:
        self._queue = queue
        self._events = events
        self._store = store
        self._unarchived: dict[str, tuple[str | None, int]] = {}
        self._cursors: dict[JobState, str | None] = {}

    def pack(self, job_id: str) -> None:
        """Archive a part once PART_EVENTS wait for it. Cheap: reads each event once before."""
        seen, waiting = self._unarchived.get(job_id, (None, 0))
        new = self._events.read(job_id, after=seen, limit=PART_EVENTS)
        if new:
            self._unarchived[job_id] = seen, waiting = new[-1].id, waiting + len(new)
        if waiting >= PART_EVENTS:
            self._unarchived[job_id] = self._archive(job_id, at_least=PART_EVENTS), 0

    def close(self, job_id: str) -> None:
        """Archive what is left of an ended job. May be done again at any time."""
        self._unarchived.pop(job_id, None)
        if self._queue.get(job_id).state not in FINAL_STATES:
            return
        # What is archived leaves its last event in Redis, and no job has ended by a single one.
        if len(self._events.read(job_id, limit=2)) > 1:
            self._archive(job_id, at_least=1)
            self._events.expire(job_id, EXPIRE_S)

    def sweep(self) -> None:
        """Close the next ended jobs that nobody has closed, page by page, round and round.

        A job that was canceled in the queue never had a dispatcher, or its dispatcher has died.
        """
        for state in FINAL_STATES:
            jobs, cursor = self._queue.list(
                state=state, cursor=self._cursors.get(state), limit=SWEPT_JOBS
            )
            for job in jobs:
                self.close(job.id)
            self._cursors[state] = cursor

    def newest_first(self, job_id: str) -> Iterator[Event]:
        """Every event of a job, backwards: Redis's, then part by part."""
        in_redis: list[Event] = []
        while page := self._events.read(job_id, after=in_redis[-1].id if in_redis else None):
            in_redis += page
        yield from reversed(in_redis)
        for key in reversed(self._parts(job_id)):
            yield from reversed(self._part(key))

    def _archive(self, job_id: str, *, at_least: int) -> str | None:
        """Write parts until fewer than `at_least` events are left, and trim Redis.

        Returns the id of the last archived event.
        """
        while True:
            parts = self._parts(job_id)
            last = self._part(parts[-1])[-1].id if parts else None
            if last:
                self._events.trim(job_id, last)
            events = self._events.read(job_id, after=last, limit=PART_EVENTS)
            if len(events) < at_least:
                return last
            lines = "".join(f"{event.model_dump_json()}\n" for event in events)
            try:
                self._store.put_if_absent(keys.events_part(job_id, len(parts)), lines.encode())
            except PreconditionFailed:
                continue  # somebody else's part: go on behind it

    def _parts(self, job_id: str) -> list[str]:
        return [info.key for info in self._store.list(keys.events_prefix(job_id))]

    def _part(self, key: str) -> list[Event]:
        return [Event.model_validate_json(line) for line in self._store.get(key).splitlines()]
