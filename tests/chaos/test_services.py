"""A part of the stack is killed in mid-training: the job ends well, nothing said is forgotten."""

from __future__ import annotations

import threading

import pytest

from services.client import Client
from services.local.state import StackState
from shared.schemas.events import EventType
from shared.schemas.jobs import JobState
from tests.roads import kill_part, kimg_of, spec, until_type, wait_until_it_runs_again


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


def test_checkpoints_wait_until_the_object_store_is_back(client: Client, stack: StackState) -> None:
    job = client.submit("train", spec(workers=1, kimg=40.0, model="keeper"))
    events = client.events(job.id)
    seen = until_type(events, EventType.CHECKPOINT)
    killed = kill_part(stack, "s3")
    wait_until_it_runs_again(stack, "s3", killed=killed)

    # One attempt did all of it, and its last checkpoint is in the store.
    seen += until_type(events, EventType.DONE)
    assert seen == list(client.events(job.id))
    ended = client.job(job.id)
    assert [attempt.outcome for attempt in ended.attempts] == ["succeeded"]
    assert kimg_of(seen, EventType.CHECKPOINT)[-1] == pytest.approx(40.0, abs=0.1)
    assert ended.result is not None
    drawn = client.submit("sample", {"model": f"keeper@{ended.result['version']}", "n": 1})
    assert client.wait(drawn.id, timeout_s=60).state is JobState.SUCCEEDED


def test_a_job_goes_on_from_its_checkpoint_when_ray_is_back(
    client: Client, stack: StackState
) -> None:
    job = client.submit("train", spec(workers=2, kimg=40.0, model="phoenix"))
    events = client.events(job.id)
    before = until_type(events, EventType.CHECKPOINT)
    killed = kill_part(stack, "ray")
    wait_until_it_runs_again(stack, "ray", killed=killed)

    after = until_type(events, EventType.DONE)
    assert before + after == list(client.events(job.id))
    ended = client.job(job.id)
    assert [attempt.outcome for attempt in ended.attempts] == ["crashed", "succeeded"]
    second = next(i for i, e in enumerate(after) if e.data.get("attempt") == 2)
    saved = kimg_of(before + after[:second], EventType.CHECKPOINT)[-1]
    assert kimg_of(after[second:], EventType.METRIC)[0] > saved

    # Serve was deployed anew on the new Ray.
    drawn = client.submit("sample", {"model": "phoenix", "n": 1})
    assert client.wait(drawn.id, timeout_s=120).state is JobState.SUCCEEDED
