"""What a job's code may know of the world: its job, its stores, whether to stop, where to report.

A background thread holds the attempt's heartbeat and writes its events, so that a slow Redis never
slows a step. When a newer attempt owns the job `should_stop` says so: a zombie must not work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal, TypeVar

import structlog

from shared.draining import at_work, is_draining
from shared.errors import InvalidInput, NotFound, StaleToken, TrainingFailed, Unavailable
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, Outcome, Progress, StopRequest
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.runs import RunStore

HEARTBEAT_S = 0.5
"""Also the delay of an event, and of a stop request; both are promised within a second or two."""

StopReason = StopRequest | Literal["interrupt", "stale"]

OUTCOMES = {
    StopRequest.CANCEL: Outcome.CANCELED,
    StopRequest.PAUSE: Outcome.PAUSED,
    "interrupt": Outcome.INTERRUPTED,
}

log = structlog.get_logger()


class Stopped(Exception):
    """The job was asked to stop, and its work has nothing to keep."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


EndOrNone = TypeVar("EndOrNone", bound="End | None")


def outcome_of(reason: StopReason | None) -> Outcome:
    """How an attempt ends that stops for this reason. Raises StaleToken for a zombie."""
    if reason is None or reason == "stale":
        raise StaleToken("a newer attempt has taken over")
    return OUTCOMES[reason]


@dataclass(frozen=True)
class End:
    """How a job's code ended, for the queue."""

    outcome: Outcome
    result: dict[str, Any] | None = None
    error: str | None = None

    @classmethod
    def of(cls, work: Callable[[], EndOrNone]) -> End | EndOrNone:
        """What `work` returns, or what its error means for the job: another try may mend it
        (CRASHED) or cannot (FAILED).

        Raises:
            StaleToken: a newer attempt owns the job; there is nothing to say any more.
        """
        try:
            return work()
        except StaleToken:
            raise
        except Stopped as stopped:
            return cls(stopped.outcome)
        except Exception as error:  # whatever happened, the queue must hear of it
            log.exception("the attempt failed")
            hopeless = isinstance(error, InvalidInput | NotFound | TrainingFailed)
            return cls(
                Outcome.FAILED if hopeless else Outcome.CRASHED,
                error=f"{type(error).__name__}: {error}",
            )


@dataclass
class AttemptContext:
    """One attempt's view of the world. Use it as a context manager: inside, the heart beats, and
    the node is not let go before a checkpoint is written."""

    job: Job
    token: int
    settings: Settings
    store: ObjectStore
    runs: RunStore
    queue: JobQueue
    events: EventLog
    observe: Callable[[EventType, dict[str, Any]], None] | None = None
    """Hears each event, too; it must return at once."""
    _stop: StopReason | None = None
    _interrupted: bool = False
    _progress: Progress | None = None
    _unsent: list[tuple[EventType, dict[str, Any]]] = field(default_factory=list)
    _outbox: SimpleQueue[tuple[EventType, dict[str, Any]]] = field(default_factory=SimpleQueue)
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _work: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(cls, job_id: str, token: int, settings: Settings) -> AttemptContext:
        """Read the job and connect; no heartbeat yet."""
        store = ObjectStore.from_settings(settings)
        job_queue = JobQueue.from_settings(settings)
        return cls(
            job=job_queue.get(job_id),
            token=token,
            settings=settings,
            store=store,
            runs=RunStore(store),
            queue=job_queue,
            events=EventLog.from_settings(settings),
        )

    def __enter__(self) -> AttemptContext:
        """Take the job's HEAD, so that older attempts cannot commit, and start the heart.

        Raises:
            StaleToken: a newer attempt owns the job.
        """
        self.runs.take_head(self.job.id, self.token)
        self._work.enter_context(at_work(self.settings.drain_file))
        self._beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._thread:
            self._thread.join()
        self._flush()
        self._work.close()

    def should_stop(self) -> StopReason | None:
        """The wish on this job, at most a second old; a plain read."""
        return self._stop

    def check_stop(self) -> None:
        """Leave the work here when it should stop: raises Stopped or, for a zombie, StaleToken."""
        if self._stop is not None:
            raise Stopped(outcome_of(self._stop))

    def report(self, type: EventType, data: dict[str, Any]) -> None:
        """Put an event into the job's log; written by the background thread."""
        self._outbox.put((type, data))
        if self.observe:
            self.observe(type, data)

    def progress(self, progress: Progress) -> None:
        """Say how far the job is; sent with the next heartbeat."""
        self._progress = progress

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For ranks without a heartbeat: when their node is drained, all ranks are to stop."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(HEARTBEAT_S):
                if is_draining(self.settings.drain_file):
                    with suppress(StaleToken, Unavailable):
                        self.queue.interrupt(self.job.id, self.token)

        with at_work(self.settings.drain_file):
            threading.Thread(target=watch, name="drain-watch", daemon=True).start()
            try:
                yield
            finally:
                over.set()

    def interrupt(self) -> None:
        """SIGTERM from outside: stop at the next step. The queue carries it to the other ranks.

        Called from a signal handler, so it only leaves a note for the heartbeat thread.
        """
        self._interrupted = True

    def finish(self, end: End) -> None:
        """Write what is left of progress and events, then tell the queue how the attempt ended.

        Redis may be away for minutes: the end of hours of work waits for it.
        """
        self._closing.set()
        if self._thread:
            self._thread.join()
        while True:
            try:
                if self._progress:
                    self._beat()
                self._flush()
                self.queue.finish(
                    self.job.id, self.token, end.outcome, error=end.error, result=end.result
                )
                return
            except Unavailable as error:
                log.warning("the queue is away; the attempt's end waits", error=str(error))
                time.sleep(error.retry_after_s or 1.0)

    def _run(self) -> None:
        while not self._closing.wait(HEARTBEAT_S):
            try:
                self._beat()
                self._flush()
            except Unavailable as error:
                log.warning("no heartbeat: the queue is away", error=str(error))
            except StaleToken as error:
                # Of several workers the first has finished the job, or a newer attempt owns it.
                log.info("this attempt is over", reason=str(error))
                self._stop = "stale"
                return

    def _beat(self) -> None:
        if self._interrupted or is_draining(self.settings.drain_file):
            self._stop = self._stop or "interrupt"
            self.queue.interrupt(self.job.id, self.token)
        progress, self._progress = self._progress, None
        self._stop = self.queue.heartbeat(self.job.id, self.token, progress)

    def _flush(self) -> None:
        while not self._outbox.empty():
            self._unsent.append(self._outbox.get())
        if self._unsent:
            self.events.append_many(self.job.id, self._unsent, token=self.token)
            self._unsent.clear()
