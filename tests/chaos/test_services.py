"""A service or Redis is killed in mid-training: the job goes on, and nothing said is forgotten."""

from __future__ import annotations

import threading

import pytest

from services.client import Client
from services.local.state import StackState
from shared.schemas.events import EventType
from shared.schemas.jobs import JobState
from tests.roads import kill_part, spec, until_type, wait_until_it_runs_again


@pytest.mark.parametrize("part", ["dispatcher", "api"])
def test_a_job_goes_on_when_a_service_is_killed(
    client: Client, stack: StackState, part: str
) -> None:
    job = client.submit("train", spec(workers=1, kimg=40.0, model="survivor"))
    events = client.events(job.id)
    seen = until_type(events, EventType.CHECKPOINT)
    killed = kill_part(stack, part)

    # The same stream goes on to the end, with no event lost or doubled.
    seen += until_type(events, EventType.DONE)
    assert seen[-1].data["state"] == JobState.SUCCEEDED
    assert seen == list(client.events(job.id))
    assert [attempt.outcome for attempt in client.job(job.id).attempts] == ["succeeded"]

    # What was killed runs again, and works.
    wait_until_it_runs_again(stack, part, killed=killed)
    after = client.submit("sample", {"model": "survivor", "n": 1})
    assert client.wait(after.id, timeout_s=60).state is JobState.SUCCEEDED


def test_redis_forgets_nothing_that_was_acknowledged(client: Client, stack: StackState) -> None:
    job = client.submit("train", spec(workers=1, kimg=40.0, model="patient"))
    events = client.events(job.id)
    seen = until_type(events, EventType.CHECKPOINT)

    # Submits go on all the while; each waits for the training.
    acknowledged: list[str] = []
    restarted = threading.Event()

    def submit() -> None:
        while not restarted.is_set():
            draw = {"model": "patient", "n": 1}
            labels = {"while": "redis-is-killed"}
            later = client.submit("sample", draw, after=[job.id], labels=labels)
            acknowledged.append(later.id)
            restarted.wait(0.2)

    submitting = threading.Thread(target=submit)
    submitting.start()
    try:
        killed = kill_part(stack, "redis")
        wait_until_it_runs_again(stack, "redis", killed=killed)
    finally:
        restarted.set()
        submitting.join()

    # Every job is there, once; the training did not notice; its events are all there.
    there = [later.id for later in client.jobs(label="while=redis-is-killed")]
    assert sorted(there) == sorted(acknowledged)
    seen += until_type(events, EventType.DONE)
    assert seen == list(client.events(job.id))
    ended = client.job(job.id)
    assert [attempt.outcome for attempt in ended.attempts] == ["succeeded"]
    assert ended.num_failures == 0
    for job_id in acknowledged:
        assert client.wait(job_id, timeout_s=60).state is JobState.SUCCEEDED
