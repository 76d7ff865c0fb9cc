"""Where the queue and Ray disagree: what is proof of a death, and what is an orphan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest

from services.dispatcher.ray_jobs import RayAttempt, RayStatus
from services.dispatcher.reconciler import (
    MAX_ENDED,
    ORPHAN_GRACE_S,
    STOP_AGAIN_S,
    Orphans,
    death,
    forgettable,
)
from shared.schemas.jobs import Attempt, Job, JobKind, JobState, Outcome, StopRequest

AT = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT_S = 60.0


def job(
    wish: StopRequest | None = None,
    *,
    number: int = 1,
    state: Literal["starting", "running", "ended"] = "running",
) -> Job:
    return Job(
        id="job-a",
        kind=JobKind.TRAIN,
        owner="o",
        state=JobState.RUNNING,
        stop_requested=wish,
        spec={},
        priority=0,
        max_attempts=3,
        attempts=[Attempt(number=number, state=state, started_at=AT)],
        created_at=AT,
        updated_at=AT,
    )


def on_ray(status: RayStatus, *, number: int = 1, ended_at_ms: int = 0) -> RayAttempt:
    return RayAttempt(
        f"job-a-{number}", "job-a", number, status, "exit code 1\nlines", None, ended_at_ms
    )


@pytest.mark.parametrize(
    ("status", "wish", "age_s", "outcome"),
    [
        (RayStatus.PENDING, None, None, None),
        (RayStatus.RUNNING, None, None, None),
        (RayStatus.RUNNING, StopRequest.CANCEL, None, None),
        (RayStatus.FAILED, None, None, Outcome.CRASHED),
        (RayStatus.SUCCEEDED, None, None, Outcome.CRASHED),
        (RayStatus.STOPPED, None, None, Outcome.INTERRUPTED),
        (RayStatus.FAILED, StopRequest.PAUSE, None, Outcome.PAUSED),
        (RayStatus.STOPPED, StopRequest.CANCEL, None, Outcome.CANCELED),
        (None, None, TIMEOUT_S - 1, None),
        (None, None, TIMEOUT_S, Outcome.CRASHED),
        (None, StopRequest.CANCEL, TIMEOUT_S, Outcome.CANCELED),
        (None, None, None, None),
    ],
)
def test_only_rays_word_is_proof_of_death(
    status: RayStatus | None,
    wish: StopRequest | None,
    age_s: float | None,
    outcome: Outcome | None,
) -> None:
    found = death(
        job(wish),
        on_ray(status) if status else None,
        heartbeat_age_s=age_s,
        timeout_s=TIMEOUT_S,
    )
    assert (found.outcome if found else None) == outcome


def test_orphans_get_time_to_leave_and_are_stopped_again_if_they_stay() -> None:
    orphans = Orphans()
    ours = job(number=2)
    ray = {
        "job-a-1": on_ray(RayStatus.RUNNING, number=1),
        "job-a-2": on_ray(RayStatus.RUNNING, number=2),
    }
    due = [
        [attempt.number for attempt in orphans.due(ray, {"job-a": ours}, now=now)]
        for now in (0, ORPHAN_GRACE_S, ORPHAN_GRACE_S + 1, ORPHAN_GRACE_S + STOP_AGAIN_S)
    ]
    assert due == [[], [1], [], [1]]
    # Its attempt is under way, has ended, or its process has.
    assert orphans.due(ray, {"job-a": job(number=1)}, now=99)[:1] == []
    assert orphans.due({"job-a-1": on_ray(RayStatus.STOPPED)}, {}, now=199) == []


def test_an_ended_attempt_of_an_active_job_is_an_orphan() -> None:
    orphans = Orphans()
    ray = {"job-a-1": on_ray(RayStatus.PENDING)}
    for now in (0, ORPHAN_GRACE_S):
        due = orphans.due(ray, {"job-a": job(state="ended")}, now=now)
    assert [attempt.number for attempt in due] == [1]


def test_ray_forgets_the_oldest_ended_jobs_only() -> None:
    ended = [on_ray(RayStatus.FAILED, number=n, ended_at_ms=1000 - n) for n in range(1, 60)]
    ray = {attempt.submission_id: attempt for attempt in ended}
    ray["job-a-60"] = on_ray(RayStatus.RUNNING, number=60)
    forgotten = [attempt.number for attempt in forgettable(ray, {"job-a": job(number=59)})]
    assert forgotten == list(range(58, MAX_ENDED, -1))
    assert forgettable(dict(list(ray.items())[:MAX_ENDED]), {}) == []
