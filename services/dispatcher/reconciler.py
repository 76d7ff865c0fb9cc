"""Where the queue and Ray disagree: attempts that died without a word, and Ray jobs without one.

Pure functions of what the queue says and what Ray says. The queue must be read after Ray: an
attempt that ends itself tells the queue first, so what Ray calls ended and the queue, asked later,
calls under way has died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.dispatcher.ray_jobs import RayAttempt, RayStatus, submission_id
from shared.schemas.jobs import Attempt, Job, Outcome, StopRequest

ORPHAN_GRACE_S = 4.0
"""An attempt that has told its end gets so long to leave by itself."""
STOP_AGAIN_S = 10.0
MAX_ENDED = 50
"""Ended jobs that Ray keeps for its dashboard; its list is read whole, every second."""

WISHED = {StopRequest.CANCEL: Outcome.CANCELED, StopRequest.PAUSE: Outcome.PAUSED}
"""The end of an attempt that is gone and was asked to go."""

ENDINGS = {
    RayStatus.FAILED: Outcome.CRASHED,
    RayStatus.SUCCEEDED: Outcome.CRASHED,  # it left without telling the queue
    RayStatus.STOPPED: Outcome.INTERRUPTED,  # somebody stopped it in Ray, not in the queue
}


@dataclass(frozen=True, slots=True)
class Death:
    """An attempt is gone without having told the queue."""

    outcome: Outcome
    why: str


def under_way(job: Job) -> Attempt | None:
    """The job's attempt that has begun and not ended."""
    newest = job.attempts[-1] if job.attempts else None
    return newest if newest and newest.state != "ended" else None


def death(
    job: Job, on_ray: RayAttempt | None, *, heartbeat_age_s: float | None, timeout_s: float
) -> Death | None:
    """Whether the attempt under way has died, by Ray's word.

    That is a final state, or that Ray, which answers, does not know a running attempt (its head was
    started anew) that has not been heard of for `timeout_s` either. Silence alone proves nothing.
    """
    if on_ray is None:
        if heartbeat_age_s is None or heartbeat_age_s < timeout_s:
            return None
        outcome = Outcome.CRASHED
        why = (
            f"Ray does not know the attempt, and its last heartbeat is {heartbeat_age_s:.0f} s old"
        )
    elif on_ray.status.is_final:
        outcome = ENDINGS[on_ray.status]
        why = f"Ray says {on_ray.status}: {on_ray.message.strip().partition(chr(10))[0]}"
    else:
        return None
    return Death(WISHED[job.stop_requested] if job.stop_requested else outcome, why)


class Orphans:
    """Ray jobs that run although the queue does not (any more) have their attempt under way."""

    def __init__(self) -> None:
        self._stop_at: dict[str, float] = {}

    def due(
        self, on_ray: Mapping[str, RayAttempt], active: Mapping[str, Job], *, now: float
    ) -> list[RayAttempt]:
        """Those that have been orphans for a while, each at most once in STOP_AGAIN_S."""
        owned = _owned(active)
        orphans = {
            name: attempt
            for name, attempt in on_ray.items()
            if name not in owned and not attempt.status.is_final
        }
        self._stop_at = {name: self._stop_at.get(name, now + ORPHAN_GRACE_S) for name in orphans}
        due = [attempt for name, attempt in orphans.items() if now >= self._stop_at[name]]
        for attempt in due:
            self._stop_at[attempt.submission_id] = now + STOP_AGAIN_S
        return due


def forgettable(on_ray: Mapping[str, RayAttempt], active: Mapping[str, Job]) -> list[RayAttempt]:
    """The ended Ray jobs beyond the newest MAX_ENDED, oldest first."""
    owned = _owned(active)
    ended = [a for name, a in on_ray.items() if a.status.is_final and name not in owned]
    return sorted(ended, key=lambda attempt: attempt.ended_at_ms)[:-MAX_ENDED]


def _owned(active: Mapping[str, Job]) -> set[str]:
    attempts = ((job.id, under_way(job)) for job in active.values())
    return {submission_id(job_id, attempt.number) for job_id, attempt in attempts if attempt}
