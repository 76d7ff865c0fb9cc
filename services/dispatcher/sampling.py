"""Sampling jobs: chunks for the bulk deployment of Ray Serve, a few in flight.

A chunk is a pure function of the spec and the model's version, so it may be made by anybody, again
if need be, and one that exists is not made again. Each job has a thread that also beats the
attempt's heart. How pictures are drawn is not known here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import structlog
from pydantic import BaseModel

from services.dispatcher.admission import MAX_SAMPLING_JOBS
from services.dispatcher.bulk import Bulk, Chunk, chunks
from shared import tracing
from shared.clock import now
from shared.errors import (
    InvalidInput,
    NotFound,
    PreconditionFailed,
    StaleToken,
    TooMany,
    Unavailable,
)
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, Outcome, Progress, StopRequest
from shared.schemas.specs import SampleSpec
from shared.settings import Settings
from shared.storage import documents, keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.storage.runs import RunResult, RunStore

CHUNKS_IN_FLIGHT = 4
"""One is drawn while others travel; a bulk replica draws one at a time."""
BEAT_S = 0.5
REPORT_S = 1.0
MAX_PAUSE_S = 10.0

OUTCOMES = {
    StopRequest.CANCEL: Outcome.CANCELED,
    StopRequest.PAUSE: Outcome.PAUSED,
    "interrupt": Outcome.INTERRUPTED,
}

T = TypeVar("T")
log = structlog.get_logger()


class LetGo(Exception):
    """This process does not look after the job any more."""


class PinnedModel(BaseModel):
    """`model.json`: the version that all chunks are drawn from, whatever its alias does later."""

    model: str
    version: int


@dataclass(frozen=True, slots=True)
class End:
    """How the attempt ended, for the queue."""

    outcome: Outcome
    result: dict[str, object] | None = None
    error: str | None = None


class Sampling:
    """The sampling attempts that this process works on."""

    def __init__(
        self, settings: Settings, queue: JobQueue, events: EventLog, store: ObjectStore
    ) -> None:
        self._queue = queue
        self._events = events
        self._store = store
        self._bulk = Bulk(settings)
        self._pool = ThreadPoolExecutor(CHUNKS_IN_FLIGHT * MAX_SAMPLING_JOBS, "chunk")
        self._runs: dict[str, SamplingRun] = {}

    def keep_going(self, job: Job) -> None:
        """Work on the job's attempt under way, unless a thread here does so already."""
        run = self._runs.get(job.id)
        if run is None or run.token != job.token or not run.is_alive():
            self.let_go(job.id)
            run = SamplingRun(job, self._queue, self._events, self._store, self._bulk, self._pool)
            self._runs[job.id] = run
            run.start()

    def let_go(self, job_id: str) -> None:
        """Stop working on a job; what it has drawn stays."""
        if run := self._runs.pop(job_id, None):
            run.let_go()

    def close(self) -> None:
        """Stop all work, and wait until no thread speaks for an attempt any more."""
        runs = list(self._runs.values())
        for run in runs:
            self.let_go(run.job.id)
        for run in runs:
            run.join()
        self._pool.shutdown(wait=False, cancel_futures=True)


class SamplingRun(threading.Thread):
    """One attempt at a sampling job."""

    def __init__(
        self,
        job: Job,
        queue: JobQueue,
        events: EventLog,
        store: ObjectStore,
        bulk: Bulk,
        pool: ThreadPoolExecutor,
    ) -> None:
        super().__init__(name=f"sampling-{job.id}", daemon=True)
        self.job = job
        self.token = job.token
        self._queue = queue
        self._events = events
        self._store = store
        self._results = RunStore(store)
        self._bulk = bulk
        self._pool = pool
        self._letting_go = threading.Event()
        self._beat_at = 0.0
        self._report_at = 0.0
        self._wish: StopRequest | str | None = None

    def let_go(self) -> None:
        """End this thread soon, without a word about the attempt."""
        self._letting_go.set()

    def run(self) -> None:
        """Draw what is missing, then tell the queue how it ended."""
        job = self.job
        with tracing.span(
            "attempt", parent=job.traceparent, job_id=job.id, attempt=self.token, kind=job.kind
        ):
            self._run()

    def _run(self) -> None:
        try:
            try:
                end = self._end()
            except (InvalidInput, NotFound) as error:
                end = End(Outcome.FAILED, error=str(error))
            except (LetGo, StaleToken):
                raise
            except Exception as error:  # whatever happened, the queue must hear of it
                log.exception("a sampling attempt failed", job_id=self.job.id, attempt=self.token)
                end = End(Outcome.CRASHED, error=f"{type(error).__name__}: {error}")
            self._patiently(lambda: self._finish(end))
        except (LetGo, StaleToken) as reason:
            log.info("let go of a sampling attempt", job_id=self.job.id, reason=repr(reason))

    def _end(self) -> End:
        held = self._patiently(lambda: self._results.result(self.job.id))
        if held is None:
            # The first heartbeat makes the job `running`.
            self._beat(None)
            spec = SampleSpec.model_validate(self.job.spec)
            pinned = self._patiently(lambda: self._pin(spec))
            wanted = chunks(spec)
            stopped = self._draw(spec, pinned, wanted)
            if stopped:
                return End(OUTCOMES[stopped])
            result = {**pinned.model_dump(), "n": spec.n, "num_chunks": len(wanted)}
            held = self._patiently(lambda: self._write_result(result))
        return End(held.outcome, result=held.result)

    def _pin(self, spec: SampleSpec) -> PinnedModel:
        """Look the model up, once for all attempts."""
        key = keys.sampled_model(self.job.id)
        try:
            return documents.read(self._store, PinnedModel, key)
        except NotFound:
            model, version = Registry(self._store).resolve(spec.model)
        pinned = PinnedModel(model=model, version=version)
        try:
            self._store.put_if_absent(key, documents.dump(pinned))
        except PreconditionFailed:
            return documents.read(self._store, PinnedModel, key)
        return pinned

    def _draw(
        self, spec: SampleSpec, pinned: PinnedModel, wanted: list[Chunk]
    ) -> StopRequest | str | None:
        """Make the chunks that are not there; returns the wish that ended it early, if any."""
        there = self._patiently(self._existing)
        todo = deque(chunk for chunk in wanted if self._key(chunk) not in there)
        done = spec.n - sum(chunk.count for chunk in todo)
        pace = Pace(done, spec.n)
        in_flight: dict[Future[None], Chunk] = {}
        pause_s, resume_at = 0.0, 0.0
        while (todo or in_flight) and not self._wish:
            # Keep a few in flight, unless Serve has asked for a pause.
            while todo and len(in_flight) < CHUNKS_IN_FLIGHT and time.monotonic() >= resume_at:
                chunk = todo.popleft()
                drawing = self._pool.submit(
                    self._bulk.draw, self.job.id, chunk, spec, pinned.model, pinned.version
                )
                in_flight[drawing] = chunk
            self._wait(in_flight)

            # Count what has come, and put back what Serve had no time for.
            for drawn in [future for future in in_flight if future.done()]:
                chunk = in_flight.pop(drawn)
                try:
                    drawn.result()
                except (Unavailable, TooMany) as busy:
                    todo.appendleft(chunk)
                    pause_s = min(max(2 * pause_s, BEAT_S), MAX_PAUSE_S)
                    resume_at = time.monotonic() + (busy.retry_after_s or pause_s)
                    log.info("the bulk deployment is busy", job_id=self.job.id, error=str(busy))
                else:
                    done += chunk.count
                    pause_s = 0.0
            self._beat(pace.progress(done))
        self._beat(pace.progress(done), at_once=True)
        # A chunk that is still in flight may be written all the same, and does no harm.
        return self._wish if todo or in_flight else None

    def _wait(self, in_flight: dict[Future[None], Chunk]) -> None:
        if in_flight:
            wait(in_flight, timeout=BEAT_S, return_when=FIRST_COMPLETED)
        else:
            self._letting_go.wait(BEAT_S / 2)
        self._check()

    def _beat(self, progress: Progress | None, *, at_once: bool = False) -> None:
        """The attempt's heartbeat and report, when they are due; learns what is wished."""
        clock = time.monotonic()
        try:
            if at_once or clock >= self._beat_at:
                self._beat_at = clock + BEAT_S
                self._wish = self._queue.heartbeat(self.job.id, self.token, progress)
            if progress and (at_once or clock >= self._report_at):
                self._report_at = clock + REPORT_S
                data = progress.model_dump(exclude_none=True)
                self._events.append(self.job.id, EventType.METRIC, data, token=self.token)
        except Unavailable as error:
            log.warning("no heartbeat", job_id=self.job.id, error=str(error))

    def _key(self, chunk: Chunk) -> str:
        return keys.sampled_chunk(self.job.id, chunk.index)

    def _existing(self) -> set[str]:
        return {info.key for info in self._store.list(keys.sampled_chunks(self.job.id))}

    def _write_result(self, result: dict[str, object]) -> RunResult:
        return self._results.write_result(
            self.job.id,
            RunResult(token=self.token, outcome=Outcome.SUCCEEDED, result=result, ended_at=now()),
        )

    def _finish(self, end: End) -> None:
        self._queue.finish(self.job.id, self.token, end.outcome, error=end.error, result=end.result)

    def _patiently(self, step: Callable[[], T]) -> T:
        """Do it, however long Redis or S3 is down."""
        while True:
            self._check()
            try:
                return step()
            except Unavailable as error:
                log.warning("a sampling attempt waits", job_id=self.job.id, error=str(error))
                self._letting_go.wait(error.retry_after_s or 1.0)

    def _check(self) -> None:
        if self._letting_go.is_set():
            raise LetGo


class Pace:
    """How fast pictures come since this attempt began, and when they will all be there."""

    def __init__(self, done: int, of: int) -> None:
        self._began_at = time.monotonic()
        self._had = done
        self._of = of

    def progress(self, done: int) -> Progress:
        elapsed_s = time.monotonic() - self._began_at
        img_per_s = (done - self._had) / elapsed_s if elapsed_s > 0 else 0.0
        return Progress(
            done=done,
            of=self._of,
            img_per_s=round(img_per_s, 1) if img_per_s else None,
            eta_s=round((self._of - done) / img_per_s, 1) if img_per_s else None,
        )
