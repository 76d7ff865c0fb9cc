"""The dispatcher's loop: from the queue to Ray and back.

It leases what fits, starts it, watches it, and finishes what died. The queue says what is, Ray says
what runs; nothing that matters is kept here, so a dispatcher may be killed at any point, and any
number of them may work on one queue. What a job does is not known here.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from services.dispatcher import admission, reconciler
from services.dispatcher.admission import Resources, Waiting
from services.dispatcher.outages import Outages
from services.dispatcher.ray_jobs import RayAttempt, RayJobs, RayStatus, submission_id
from services.dispatcher.reconciler import WISHED, Death, under_way
from services.dispatcher.records import Records
from services.dispatcher.sampling import Sampling
from services.dispatcher.telemetry import Telemetry
from shared import tracing
from shared.clock import now
from shared.errors import Conflict, NotFound, StaleToken
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import Job, JobKind, Outcome
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.runs import RunStore

TICK_S = 0.5
ASK_RAY_S = 1.0
PENDING_GRACE_S = 5.0
"""Ray takes a second or two to start a process, longer only where it has no place for it."""
STOP_AGAIN_S = 10.0
MAX_READY = 500
"""Waiting jobs that one tick looks at: jobs that do not fit block none of those behind them."""

# What may be down, in the words of the log.
THE_STORES = "checking the stores"
THE_QUEUE = "the queue"
ASKING_RAY = "asking Ray"
STARTING = "starting attempts"
WATCHING = "watching attempts"

NO_RAY = "waits for the Ray cluster, which does not answer"

log = structlog.get_logger()


@dataclass
class Lease:
    """What this process keeps in mind about a job that it looks after; all of it is dispensable."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    """Marks our claim of an attempt's number."""
    stop_asked_at: float | None = None
    """Since when we know that the attempt was asked to end itself."""
    stop_again_at: float = 0.0


class Dispatcher:
    """One dispatcher of a queue."""

    def __init__(self, settings: Settings, *, ray: RayJobs | None = None) -> None:
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.telemetry = Telemetry(stalled_after_s=settings.lease_ttl_s)
        self._settings = settings
        self._ray = ray or RayJobs(settings)
        self._store = store = ObjectStore.from_settings(settings)
        self._runs = RunStore(store)
        self._queue = JobQueue.from_settings(settings)
        events = EventLog.from_settings(settings)
        self._sampling = Sampling(settings, self._queue, events, store)
        self._outages = Outages()
        self._records = Records(settings, self._ray, self._queue, events, store, self._outages)
        self._stopping = threading.Event()

        self._leases: dict[str, Lease] = {}
        self._renew_at = 0.0
        self._on_ray: dict[str, RayAttempt] | None = None
        """Ray's word on all attempts; None while it does not answer."""
        self._cluster = Resources()
        """What the cluster has, or may grow to where that is more."""
        self._ask_ray_at = 0.0
        self._orphans = reconciler.Orphans()
        self._reasons: dict[str, str] = {}

    def run(self) -> None:
        """Work until `stop` is called, then let go of all leases: what runs goes on.

        Raises UnsafeStore: Redis or S3 does not hold what the design relies on.
        """
        self._insist(THE_STORES, self._check_stores)
        log.info("dispatching", owner=self.owner, queue=self._settings.queue_name)
        while not self._stopping.is_set():
            self.telemetry.turned()
            if not self._outages.survive(THE_QUEUE, self._round):
                self._stopping.wait(TICK_S)
        self._sampling.close()
        self._outages.survive("letting go", self._let_go_of_all)
        self._records.close()
        log.info("let go", owner=self.owner)

    def stop(self) -> None:
        """Make `run` return soon. May be called from a signal handler or another thread."""
        self._stopping.set()

    def _insist(self, what: str, step: Callable[[], None]) -> None:
        """Do it once it works, unless told to stop before."""
        while not self._outages.survive(what, step) and not self._stopping.wait(TICK_S):
            pass

    def _check_stores(self) -> None:
        self._queue.check_server()
        self._store.ensure_bucket()
        self._store.probe()

    def _round(self) -> None:
        self.tick()
        self._queue.wait_for_work(TICK_S)

    def tick(self) -> None:
        """One round over everything. Raises Unavailable when Redis is down."""
        # Adopt what lost its dispatcher, and renew our own leases.
        self._hold_leases()

        # Ask Ray first and the queue second: reconciler.py says why.
        if not self._outages.survive(ASKING_RAY, self._ask_ray):
            self._on_ray = None
        active = {job.id: job for job in self._queue.active()}
        ours = [active[job_id] for job_id in self._leases.keys() & active.keys()]
        self.telemetry.looked(num_leases=len(self._leases), ray_up=self._on_ray is not None)
        self.telemetry.held(filter(under_way, ours), self._cluster)

        # Look after what is ours: start it, watch it, finish what has died, stop what must.
        for job in ours:
            self._guarded(job)

        # Let go of what has ended, and end what runs without being wanted.
        for job_id in self._leases.keys() - active.keys():
            self._forget(job_id)
            self._records.wind_up(job_id)
        self._outages.survive(WATCHING, lambda: self._stop_orphans(active))

        # Admit what fits, and start it.
        self._admit()

        # Relay logs and archive events.
        for job_id in self._leases.keys() & active.keys():
            self._records.keep(job_id, self._attempt_on_ray(active[job_id]))
        self._records.sweep()

    # Leases

    def _hold_leases(self) -> None:
        ttl_s = self._settings.lease_ttl_s
        if time.monotonic() >= self._renew_at:
            ours = self._queue.renew(list(self._leases), owner=self.owner, ttl_s=ttl_s)
            active = {job.id for job in self._queue.active()}
            for job_id in (self._leases.keys() & active) - ours:
                log.warning("another dispatcher has taken over", job_id=job_id)
                self._forget(job_id)
                self._records.forget(job_id)
            self._renew_at = time.monotonic() + ttl_s / 3
        for job in self._queue.adopt(owner=self.owner, ttl_s=ttl_s):
            log.info("adopted", job_id=job.id, state=job.state, attempt=job.token)
            self._leases.setdefault(job.id, Lease())

    def _let_go_of_all(self) -> None:
        self._queue.release(list(self._leases), owner=self.owner)

    def _forget(self, job_id: str) -> None:
        """Stop looking after a job."""
        self._leases.pop(job_id, None)
        self._sampling.let_go(job_id)

    # Ray's word

    def _ask_ray(self) -> None:
        if time.monotonic() < self._ask_ray_at:
            return
        self._on_ray = self._ray.attempts()
        limit = Resources(cpus=self._settings.ray_max_cpus, gpus=self._settings.ray_max_gpus)
        self._cluster = self._ray.capacity() | limit
        self._ask_ray_at = time.monotonic() + ASK_RAY_S

    def _attempt_on_ray(self, job: Job) -> RayAttempt | None:
        attempt = under_way(job)
        if attempt is None or self._on_ray is None:
            return None
        return self._on_ray.get(submission_id(job.id, attempt.number))

    # One job of ours

    def _guarded(self, job: Job) -> None:
        try:
            self._look_after(job)
        except (StaleToken, Conflict, NotFound) as error:
            # The attempt or another dispatcher was faster; the next round sees what is so now.
            log.info("overtaken", job_id=job.id, reason=str(error))
            self._renew_at = 0.0
        except Exception:  # a defect that one job brings out must not stop all others
            log.exception("cannot look after a job", job_id=job.id)

    def _look_after(self, job: Job) -> None:
        attempt = under_way(job)
        if attempt is None:
            self._outages.survive(STARTING, lambda: self._begin(job))
        elif job.kind is JobKind.SAMPLE:
            self._sampling.keep_going(job)
        elif self._on_ray is not None:
            on_ray = self._attempt_on_ray(job)
            if on_ray is None and attempt.state == "starting":
                self._outages.survive(STARTING, lambda: self._submit(job))
            else:
                self._outages.survive(WATCHING, lambda: self._watch(job, on_ray))

    def _begin(self, job: Job) -> None:
        """Claim the next attempt's number in the store, record it, start it."""
        if job.stop_requested:
            self._queue.finish(job.id, 0, WISHED[job.stop_requested], owner=self.owner)
            return
        nonce = self._leases[job.id].nonce
        number = self._runs.claim_attempt(job.id, above=job.token, nonce=nonce)
        begun = self._queue.begin(job.id, owner=self.owner, number=number)
        self.telemetry.begun(begun)
        self._leases[job.id] = Lease()
        log.info("begins", job_id=job.id, attempt=number)
        if job.kind is JobKind.SAMPLE:
            self._sampling.keep_going(begun)
        else:
            self._submit(begun)

    def _submit(self, job: Job) -> None:
        """Start the attempt under way on Ray; the same name again does no harm."""
        if job.stop_requested:
            self._queue.finish(job.id, job.token, WISHED[job.stop_requested])
            return
        need = admission.demand(job, self._cluster)
        # A single rank runs in the driver itself; several hold what Ray Train asks for them.
        alone = job.spec.get("workers", 1) == 1
        try:
            with tracing.span("submit", attempt=job.token):
                self._ray.submit(job.id, job.token, driver=need if alone else Resources())
        except Conflict as error:
            self._queue.finish(job.id, job.token, Outcome.CRASHED, error=str(error))
            return
        name = submission_id(job.id, job.token)
        if self._on_ray is not None:
            self._on_ray[name] = RayAttempt(name, job.id, job.token, RayStatus.PENDING)

    def _watch(self, job: Job, on_ray: RayAttempt | None) -> None:
        """Finish an attempt that has died; make one go that does not heed a stop."""
        death = reconciler.death(
            job,
            on_ray,
            heartbeat_age_s=None if on_ray else self._queue.heartbeat_age_s(job.id),
            timeout_s=self._settings.heartbeat_timeout_s,
        )
        if death:
            self._bury(job, death, on_ray)
        elif job.stop_requested and on_ray:
            self._make_go(job, WISHED[job.stop_requested], on_ray)

    def _bury(self, job: Job, death: Death, on_ray: RayAttempt | None) -> None:
        """Say how a dead attempt has ended. RESULT, if it got so far, outweighs its death."""
        held = self._runs.result(job.id)
        if held:
            self._queue.finish(job.id, job.token, held.outcome, result=held.result)
            return
        log.warning("an attempt has died", job_id=job.id, attempt=job.token, why=death.why)
        last_words = self._records.last_words(job.id, on_ray) if on_ray else ""
        error = f"{death.why}\n{last_words}".strip()
        self._queue.finish(job.id, job.token, death.outcome, error=error)

    def _make_go(self, job: Job, outcome: Outcome, on_ray: RayAttempt) -> None:
        """Have Ray stop an attempt that was asked to end itself and has had its time."""
        lease, clock = self._leases[job.id], time.monotonic()
        lease.stop_asked_at = lease.stop_asked_at or clock
        waited_s = clock - lease.stop_asked_at
        if on_ray.status is RayStatus.PENDING and waited_s >= PENDING_GRACE_S:
            # Nothing runs yet that could see the wish. Should it start after all, it finds its
            # attempt ended, and is an orphan.
            self._ray.stop(on_ray.submission_id)
            self._queue.finish(job.id, job.token, outcome)
        elif waited_s >= self._settings.stop_grace_s and clock >= lease.stop_again_at:
            log.warning("stopped by Ray", job_id=job.id, attempt=job.token)
            self._ray.stop(on_ray.submission_id)
            lease.stop_again_at = clock + STOP_AGAIN_S

    # What is over

    def _stop_orphans(self, active: Mapping[str, Job]) -> None:
        """Stop Ray jobs whose attempt has ended, and have Ray forget the oldest of those gone."""
        if self._on_ray is None:
            return
        for orphan in self._orphans.due(self._on_ray, active, now=time.monotonic()):
            try:
                self._queue.get(orphan.job_id)
            except NotFound:
                # A queue that lost its memory is no proof that the work is not wanted.
                log.warning("the queue does not know a running job", job_id=orphan.job_id)
                continue
            log.warning("stopped: its attempt is over", ray_job=orphan.submission_id)
            self._ray.stop(orphan.submission_id)
        for attempt in reconciler.forgettable(self._on_ray, active):
            self._ray.forget(attempt.submission_id)
            del self._on_ray[attempt.submission_id]

    # Who is next

    def _admit(self) -> None:
        """Lease what fits and start it; say of each of the others what it waits for."""
        if not self._outages.may_try(STARTING):
            return  # a leased job that cannot be started helps nobody
        # What another dispatcher leases meanwhile is in one of the two, or its lease fails here.
        ready = self._queue.ready(MAX_READY)
        self.telemetry.waiting(ready)
        active = self._queue.active() if ready else []
        samplings = Resources(samplings=admission.MAX_SAMPLING_JOBS)
        cluster = samplings if self._on_ray is None else self._cluster + samplings
        plan = admission.admit(
            [self._waiting(job, cluster) for job in ready if self._can_start(job)],
            cluster=cluster,
            held=admission.total(admission.demand(job, cluster) for job in active),
        )
        traces = {job.id: job.traceparent for job in ready}
        for job_id in plan.start:
            with tracing.span("dispatch", parent=traces[job_id], job_id=job_id):
                with tracing.span("lease"):
                    leased = self._queue.lease(
                        job_id, owner=self.owner, ttl_s=self._settings.lease_ttl_s
                    )
                if leased is None:
                    break
                self._leases[job_id] = Lease()
                self._guarded(leased)
        no_ray = {job.id: NO_RAY for job in ready if not self._can_start(job)}
        reasons = plan.reasons | no_ray
        for job_id, reason in reasons.items():
            if self._reasons.get(job_id) != reason:
                self._queue.set_reason(job_id, reason)
        self._reasons = reasons

    def _can_start(self, job: Job) -> bool:
        return self._on_ray is not None or job.kind is JobKind.SAMPLE

    def _waiting(self, job: Job, cluster: Resources) -> Waiting:
        waited_s = (now() - job.created_at).total_seconds()
        return Waiting(job.id, admission.demand(job, cluster), waited_s)
