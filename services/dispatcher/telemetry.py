"""What Prometheus scrapes from a dispatcher, and whether its loop turns."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest

from services.dispatcher.admission import Resources, demand
from shared import metrics
from shared.clock import now
from shared.exposition import counter, gauge, histogram
from shared.schemas.jobs import Job

DEVICES = {"gpu": "gpus", "cpu": "cpus"}


class Telemetry:
    """The metrics of one dispatcher. The loop writes them, another thread reads them."""

    def __init__(self, *, stalled_after_s: float) -> None:
        self._stalled_after_s = stalled_after_s
        self._turned_at: float | None = None
        self._held_at: float | None = None
        self._oldest_ready_at: datetime | None = None
        self._registry = CollectorRegistry()
        self._turn = gauge(metrics.DISPATCHER_TURN, self._registry)
        self._leases = gauge(metrics.DISPATCHER_LEASES, self._registry)
        self._ray_up = gauge(metrics.DISPATCHER_RAY_UP, self._registry)
        self._ready = gauge(metrics.READY_JOBS, self._registry)
        self._wait = histogram(metrics.QUEUE_WAIT, self._registry)
        self._device_s = counter(metrics.DEVICE_SECONDS, self._registry)
        gauge(metrics.READY_OLDEST_AGE, self._registry).set_function(self._oldest_ready_age_s)

    @property
    def turns(self) -> bool:
        """Whether the loop has begun, and turned within the last `stalled_after_s`."""
        turned_at = self._turned_at
        return turned_at is not None and time.monotonic() - turned_at < self._stalled_after_s

    def exposition(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)

    def turned(self) -> None:
        """The loop is here again, whether or not Redis answers it."""
        self._turned_at = time.monotonic()
        self._turn.set_to_current_time()

    def looked(self, *, num_leases: int, ray_up: bool) -> None:
        """The loop has seen its leases, and Ray or not."""
        self._leases.set(num_leases)
        self._ray_up.set(ray_up)

    def waiting(self, ready: Iterable[Job]) -> None:
        """These jobs could start, if there were room."""
        submitted_at = [job.created_at for job in ready]
        self._ready.set(len(submitted_at))
        self._oldest_ready_at = min(submitted_at, default=None)

    def begun(self, job: Job) -> None:
        """An attempt has been recorded; the first one ends the job's wait."""
        if len(job.attempts) == 1:
            wait_s = (job.attempts[0].started_at - job.created_at).total_seconds()
            self._wait.labels(job.kind).observe(wait_s)

    def held(self, ours: Iterable[Job], cluster: Resources) -> None:
        """These jobs have held what they need since the last call."""
        at = time.monotonic()
        passed_s, self._held_at = at - (self._held_at or at), at
        for job in ours:
            need = demand(job, cluster)
            for device, name in DEVICES.items():
                if number := getattr(need, name):
                    self._device_s.labels(job.owner, device).inc(number * passed_s)

    def _oldest_ready_age_s(self) -> float:
        submitted_at = self._oldest_ready_at
        return max(0.0, (now() - submitted_at).total_seconds()) if submitted_at else 0.0
