"""The records of the jobs that are looked after, kept by threads beside the loop.

While an attempt runs, its log is relayed and its events are archived in parts; when it has ended,
the rest of both. What was missed (a dispatcher died, S3 was down) is swept up later. Nothing here
changes a job's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

import structlog

from services.dispatcher.archive import EventArchive
from services.dispatcher.log_relay import Cursor, LogRelay
from services.dispatcher.outages import Outages
from services.dispatcher.ray_jobs import RayAttempt, RayJobs
from services.dispatcher.uploads import UploadSweep
from shared.clock import now
from shared.errors import NotFound, Unavailable
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.settings import Settings
from shared.storage.objects import ObjectStore

KEEP_S = 1.0
SWEEP_S = 10.0
UPLOADS_S = 300.0
NUM_THREADS = 8  # they wait for HTTP, mostly
KEEPING = "keeping records"  # in the words of the log

log = structlog.get_logger()


@dataclass
class _Tail:
    """How far the records of a job's newest attempt are. One task at a time works on them."""

    attempt: RayAttempt | None
    cursor: Cursor = field(default_factory=Cursor)
    task: Future[None] | None = None
    due_at: float = 0.0


@dataclass
class _Sweep:
    """What is done now and then for all jobs, one task at a time."""

    step: Callable[[], None]
    period_s: float
    task: Future[None] | None = None
    due_at: float = 0.0


class Records:
    """Logs and events of all jobs that one dispatcher looks after; and what ended jobs leave."""

    def __init__(
        self,
        settings: Settings,
        ray: RayJobs,
        queue: JobQueue,
        events: EventLog,
        store: ObjectStore,
        outages: Outages,
    ) -> None:
        self._ray = ray
        self._queue = queue
        self._archive = EventArchive(queue, events, store)
        self._relay = LogRelay(settings, ray, events, self._archive)
        self._outages = outages
        self._pool = ThreadPoolExecutor(NUM_THREADS, "records")
        self._tails: dict[str, _Tail] = {}
        uploads = UploadSweep(queue, store)
        self._sweeps = [
            _Sweep(self._archive.sweep, SWEEP_S),
            _Sweep(lambda: uploads.sweep(now()), UPLOADS_S),
        ]

    def keep(self, job_id: str, on_ray: RayAttempt | None) -> None:
        """Relay and archive what is new, if that is due. `on_ray`: the attempt, if Ray runs it."""
        tail = self._tail(job_id, on_ray)
        is_idle = tail.task is None or tail.task.done()
        if is_idle and time.monotonic() >= tail.due_at:
            tail.due_at = time.monotonic() + KEEP_S
            tail.task = self._later(partial(self._keep, job_id, tail))

    def last_words(self, job_id: str, attempt: RayAttempt) -> str:
        """Relay the rest of a dead attempt's log, and return the end of it, without secrets."""
        try:
            self._relay.pull(attempt, self._tail(job_id, attempt).cursor, to_the_end=True)
            return self._relay.blacked_out(self._ray.log_tail(attempt))
        except Unavailable as error:  # its node may have died with it
            return f"(its log cannot be read: {error})"

    def wind_up(self, job_id: str) -> None:
        """The attempt has ended: relay what is left of its log; if the job is over, archive all."""
        tail = self._tails.pop(job_id, None)
        self._later(partial(self._wind_up, job_id, tail))

    def forget(self, job_id: str) -> None:
        """Another dispatcher keeps this job's records."""
        self._tails.pop(job_id, None)

    def sweep(self) -> None:
        """Archive the next ended jobs that nobody has archived, and delete uploads that are over,
        if that is due."""
        for sweep in self._sweeps:
            is_idle = sweep.task is None or sweep.task.done()
            if is_idle and time.monotonic() >= sweep.due_at:
                sweep.due_at = time.monotonic() + sweep.period_s
                sweep.task = self._later(sweep.step)

    def close(self) -> None:
        """Begin no more tasks; those that run end soon."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _tail(self, job_id: str, on_ray: RayAttempt | None) -> _Tail:
        tail = self._tails.get(job_id)
        if tail is None or (on_ray and tail.attempt and tail.attempt.number != on_ray.number):
            tail = self._tails[job_id] = _Tail(on_ray)
        tail.attempt = on_ray or tail.attempt
        return tail

    def _keep(self, job_id: str, tail: _Tail) -> None:
        attempt = tail.attempt
        if attempt and attempt.agent_url:
            self._outages.survive(
                f"relaying logs from {attempt.agent_url}",
                partial(self._relay.pull, attempt, tail.cursor),
            )
        self._archive.pack(job_id)

    def _wind_up(self, job_id: str, tail: _Tail | None) -> None:
        tail = tail or _Tail(None)
        if tail.task:
            wait([tail.task])
        number = tail.attempt.number if tail.attempt else self._queue.get(job_id).token
        if number:
            self._outages.survive(
                "relaying last words", partial(self._relay_rest, job_id, number, tail.cursor)
            )
        self._archive.close(job_id)

    def _relay_rest(self, job_id: str, number: int, cursor: Cursor) -> None:
        # Asked anew: a short attempt may have ended before Ray's list said where it runs.
        if attempt := self._ray.attempt(job_id, number):
            self._relay.pull(attempt, cursor, to_the_end=True)

    def _later(self, step: Callable[[], None]) -> Future[None]:
        def task() -> None:
            try:
                self._outages.survive(KEEPING, step)
            except NotFound as error:
                log.info("no record", reason=str(error))
            except Exception:  # nobody looks at how a task ends
                log.exception("a record was not kept")

        return self._pool.submit(task)
