"""Kills in mid-training: what ends is what would have ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from services.client import Client
from services.local.stack import status
from services.local.state import StackState
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobState
from tests.roads import attempt_processes, push_squares, spec, until, until_checkpoint, wait_for


@pytest.fixture(scope="module")
def client(stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(data_dir=stack.data_dir) as client:
        push_squares(client, tmp_path_factory.mktemp("upload"))
        yield client


def weights_of(client: Client, job: Job) -> str:
    """The digest of what a job published."""
    assert job.state is JobState.SUCCEEDED, job
    assert job.result is not None
    return client.card(job.result["model"], job.result["version"]).weights_sha256


def kill(stack: StackState, number: int = signal.SIGKILL) -> None:
    """The signal to all processes of the attempt that runs."""
    processes = attempt_processes(stack)
    assert processes
    for process in processes:
        os.kill(process.pid, number)


def part_pid(stack: StackState, name: str) -> int:
    pid = status(stack.data_dir).part(name).pid
    assert pid is not None
    return pid


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_attempt_ends_with_the_same_bits(
    client: Client, stack: StackState, workers: int
) -> None:
    asked = spec(workers=workers, kimg=60.0, model=f"bits-{workers}", seed=5)
    undisturbed = client.wait(client.submit("train", asked).id, timeout_s=240)
    job = client.submit("train", asked)
    until_checkpoint(client, job.id)
    kill(stack)
    disturbed = client.wait(job.id, timeout_s=300)
    assert [attempt.number for attempt in disturbed.attempts] == [1, 2]
    assert disturbed.num_failures == 1
    assert weights_of(client, disturbed) == weights_of(client, undisturbed)


@pytest.mark.parametrize("part", ["dispatcher", "api"])
def test_a_job_goes_on_when_a_service_is_killed(
    client: Client, stack: StackState, part: str
) -> None:
    job = client.submit("train", spec(workers=1, kimg=60.0, model="survivor"))
    until_checkpoint(client, job.id)
    before = part_pid(stack, part)
    os.kill(before, signal.SIGKILL)
    last = until(client, job.id, lambda event: event.type is EventType.DONE)
    assert last.data["state"] == JobState.SUCCEEDED
    assert [attempt.number for attempt in client.job(job.id).attempts] == [1]
    wait_for(
        lambda: status(stack.data_dir).part(part).pid not in (None, before),
        within_s=30,
        what=f"{part} runs again",
    )


@pytest.mark.parametrize("started", [True, False], ids=["running", "starting"])
def test_a_canceled_job_leaves_no_process(
    client: Client, stack: StackState, *, started: bool
) -> None:
    job = client.submit("train", spec(workers=2, kimg=5000.0, model="canceled"))
    if started:
        until_checkpoint(client, job.id)
    else:
        until(client, job.id, lambda event: event.data.get("state") == JobState.RUNNING)
    client.cancel(job.id)
    wait_for(lambda: not attempt_processes(stack), within_s=15, what="its processes are gone")
    wait_for(
        lambda: client.job(job.id).state is JobState.CANCELED, within_s=15, what="it is canceled"
    )


def test_sigterm_gives_the_job_back_with_a_checkpoint(client: Client, stack: StackState) -> None:
    job = client.submit("train", spec(workers=1, kimg=100.0, model="preempted"))
    until_checkpoint(client, job.id)
    kill(stack, signal.SIGTERM)
    ended = client.wait(job.id, timeout_s=240)
    assert ended.state is JobState.SUCCEEDED
    assert [attempt.outcome for attempt in ended.attempts] == ["interrupted", "succeeded"]
    assert ended.num_failures == 0


def test_redis_may_be_killed_in_mid_training(client: Client, stack: StackState) -> None:
    job = client.submit("train", spec(workers=1, kimg=100.0, model="patient"))
    until_checkpoint(client, job.id)
    os.kill(part_pid(stack, "redis"), signal.SIGKILL)
    ended = client.wait(job.id, timeout_s=240)
    assert ended.state is JobState.SUCCEEDED
    assert [attempt.number for attempt in ended.attempts] == [1]
