"""An attempt is killed, interrupted or canceled: what ends is what would have ended, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from services.client import Client
from services.local.state import StackState
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobState
from tests.roads import (
    NEVER,
    attempt_processes,
    driver,
    is_state,
    kill_attempt,
    kimg_of,
    open_to_others,
    spec,
    until,
    until_state,
    until_type,
    wait_for,
)

KIMG = {1: 40.0, 2: 20.0}
"""By the number of workers: each lasts some 10 s behind its start on two cores."""
GONE_S = 15.0
"""Promised: how long after a cancel nothing of the job runs any more."""


def run(workers: int, **config: Any) -> dict[str, Any]:
    return spec(workers=workers, kimg=KIMG[workers], model=f"bits-{workers}", seed=5, **config)


@pytest.fixture(scope="module")
def undisturbed(client: Client) -> Callable[[int], str]:
    """The weights that a run with so many workers ends with when nothing happens."""
    digests: dict[int, str] = {}

    def digest(workers: int) -> str:
        if workers not in digests:
            job = client.submit("train", run(workers))
            digests[workers] = weights_of(client, client.wait(job.id, timeout_s=240))
        return digests[workers]

    return digest


def weights_of(client: Client, job: Job) -> str:
    """The digest of what a job published."""
    assert job.result is not None
    return client.card(job.result["model"], job.result["version"]).weights_sha256


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_attempt_is_followed_by_one_that_ends_with_the_same_bits(
    client: Client, stack: StackState, undisturbed: Callable[[int], str], workers: int
) -> None:
    job = client.submit("train", run(workers))
    events = client.events(job.id)
    seen = until_type(events, EventType.CHECKPOINT)
    kill_attempt(stack, job.id)

    # It is queued again, with the reason, and goes on from its newest checkpoint.
    seen += until_state(events, JobState.QUEUED)
    assert "1 of 3 attempts crashed" in seen[-1].data["reason"]
    assert seen[-1].data["attempt"] == 1
    saved_at = kimg_of(seen, EventType.CHECKPOINT)[-1]
    rest = list(events)
    assert kimg_of(rest, EventType.METRIC)[0] > saved_at
    assert rest[-1].data["state"] == JobState.SUCCEEDED

    ended = client.job(job.id)
    assert [attempt.number for attempt in ended.attempts] == [1, 2]
    assert [attempt.outcome for attempt in ended.attempts] == ["crashed", "succeeded"]
    assert ended.num_failures == 1
    assert weights_of(client, ended) == undisturbed(workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_gives_the_job_back_with_a_checkpoint(
    client: Client, stack: StackState, undisturbed: Callable[[int], str], workers: int
) -> None:
    job = client.submit("train", run(workers, checkpoint_every_kimg=NEVER))
    events = client.events(job.id)
    seen = until_type(events, EventType.METRIC)
    driver(stack, job.id).terminate()
    seen += until_state(events, JobState.QUEUED)
    (saved_at,) = kimg_of(seen, EventType.CHECKPOINT)
    rest = list(events)
    assert kimg_of(rest, EventType.METRIC)[0] > saved_at

    ended = client.job(job.id)
    assert [attempt.outcome for attempt in ended.attempts] == ["interrupted", "succeeded"]
    assert ended.num_failures == 0
    assert weights_of(client, ended) == undisturbed(workers)


@pytest.mark.parametrize("moment", ["starting", "running", "training"])
def test_a_canceled_job_leaves_no_process(client: Client, stack: StackState, moment: str) -> None:
    job = client.submit("train", spec(workers=2, kimg=5000.0, model="canceled"))
    events = client.events(job.id)
    if moment == "training":
        until_type(events, EventType.METRIC)
        processes = attempt_processes(stack, job.id)
        assert len(processes) >= 3  # the driver and two ranks
        assert [address for process in processes for address in open_to_others(process)] == []
    else:
        until(
            events, lambda event: is_state(event, JobState(moment)) and event.data["attempt"] == 1
        )
    client.cancel(job.id)
    deadline = time.monotonic() + GONE_S
    until_type(events, EventType.DONE)
    assert client.job(job.id).state is JobState.CANCELED
    wait_for(
        lambda: not attempt_processes(stack, job.id),
        within_s=deadline - time.monotonic(),
        what="its processes are gone",
    )
