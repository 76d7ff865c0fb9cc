"""Dispatchers, attempts and stores die; each job is done once all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.dispatcher.admission import Resources
from services.dispatcher.ray_jobs import RayJobs
from services.local.servers import start_redis, start_s3
from services.local.state import StackState
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, JobState, Outcome
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.storage.runs import RunStore
from tests.dispatching import (
    NO_RAY,
    bulk_deployment,
    dispatcher_process,
    dispatching,
    ended,
    eventually,
    is_gone,
    on_stacks_ray,
    processes,
    reached,
    submit,
    tiny_attempts,
    write_settings,
)
from tests.forgers import publish_forger

DEAD = "a-dispatcher-that-died"


@pytest.fixture
def on_ray(settings: Settings, object_store: ObjectStore, stack: StackState) -> Settings:
    del object_store  # the bucket exists
    return on_stacks_ray(settings, stack).model_copy(update={"lease_ttl_s": 1.0})


@pytest.fixture
def file(on_ray: Settings, tmp_path: Path) -> Path:
    return write_settings(on_ray, tmp_path / "settings.json")


@pytest.fixture
def ray(on_ray: Settings, file: Path) -> RayJobs:
    return tiny_attempts(on_ray, file)


@pytest.fixture
def job_id(settings: Settings) -> str:
    """An id of this test's own, also in Ray, which all tests share."""
    return f"job-{settings.queue_name}"


# What a dispatcher does at the start of an attempt, step by step.


def lease(queue: JobQueue, runs: RunStore, ray: RayJobs, job_id: str) -> None:
    assert queue.lease(job_id, owner=DEAD, ttl_s=0.5)


def claim(queue: JobQueue, runs: RunStore, ray: RayJobs, job_id: str) -> None:
    assert runs.claim_attempt(job_id, above=0, nonce=DEAD) == 1


def begin(queue: JobQueue, runs: RunStore, ray: RayJobs, job_id: str) -> None:
    queue.begin(job_id, owner=DEAD, number=1)


def start(queue: JobQueue, runs: RunStore, ray: RayJobs, job_id: str) -> None:
    ray.submit(job_id, 1, driver=Resources(cpus=1))


STEPS: list[Callable[[JobQueue, RunStore, RayJobs, str], None]] = [lease, claim, begin, start]


@pytest.mark.parametrize("last", STEPS, ids=lambda step: step.__name__)
def test_a_start_that_was_cut_off_behind_any_step_is_finished_by_another(
    last: Callable[[JobQueue, RunStore, RayJobs, str], None],
    on_ray: Settings,
    ray: RayJobs,
    object_store: ObjectStore,
    job_queue: JobQueue,
    job_id: str,
) -> None:
    job = submit(job_queue, job_id)
    for step in STEPS[: STEPS.index(last) + 1]:
        step(job_queue, RunStore(object_store), ray, job_id)
    with dispatching(on_ray, ray=ray):
        assert ended(job).state is JobState.SUCCEEDED
    # A number that was claimed and not begun is never used; every other one is used once.
    number = 2 if last is claim else 1
    assert [attempt.number for attempt in job().attempts] == [number]
    assert {n: len(pids) for n, pids in processes(object_store, job_id).items()} == {number: 1}


def test_a_killed_dispatcher_costs_a_running_attempt_nothing(
    file: Path, object_store: ObjectStore, job_queue: JobQueue, job_id: str
) -> None:
    job = submit(job_queue, job_id, behaviour="obey")
    with dispatcher_process(file):
        reached(job, JobState.RUNNING)
    pids = processes(object_store, job_id)
    assert len(pids[1]) == 1
    with dispatcher_process(file):
        job_queue.cancel(job_id)
        assert ended(job).attempts[0].outcome is Outcome.CANCELED
        eventually(lambda: is_gone(pids[1]))
    assert processes(object_store, job_id) == pids


def test_a_dispatcher_that_is_told_to_go_hands_its_jobs_over_at_once(
    on_ray: Settings, tmp_path: Path, object_store: ObjectStore, job_queue: JobQueue, job_id: str
) -> None:
    # Without a word the lease would hold for an hour.
    long = on_ray.model_copy(update={"lease_ttl_s": 3600.0})
    file = write_settings(long, tmp_path / "long.json")
    job = submit(job_queue, job_id, behaviour="obey")
    with dispatcher_process(file) as first:
        reached(job, JobState.RUNNING)
        first.terminate()
        assert first.wait() == 0
    os.kill(processes(object_store, job_id)[1][0], signal.SIGKILL)
    with dispatcher_process(file):
        eventually(lambda: len(job().attempts) == 2)
        job_queue.cancel(job_id)
        assert ended(job).state is JobState.CANCELED
    assert job().attempts[0].outcome is Outcome.CRASHED


def test_two_dispatchers_at_once_do_each_job_once(
    file: Path, object_store: ObjectStore, job_queue: JobQueue, job_id: str
) -> None:
    jobs = [submit(job_queue, f"{job_id}-{i}") for i in range(5)]
    with dispatcher_process(file) as first, dispatcher_process(file):
        eventually(lambda: job_queue.counts()[JobState.SUCCEEDED] >= 1)
        # One of them stands still for longer than its leases hold, and then goes on.
        first.send_signal(signal.SIGSTOP)
        eventually(lambda: job_queue.counts()[JobState.SUCCEEDED] >= 3)
        first.send_signal(signal.SIGCONT)
        for job in jobs:
            assert ended(job).state is JobState.SUCCEEDED
            # Its number is 2 if the first one stood still between a claim and a begin.
            (attempt,) = job().attempts
            ((number, pids),) = processes(object_store, job().id).items()
            assert (number, len(pids)) == (attempt.number, 1)


def test_a_killed_attempt_is_followed_by_another(
    file: Path, object_store: ObjectStore, job_queue: JobQueue, job_id: str
) -> None:
    job = submit(job_queue, job_id, behaviour="obey finish")
    with dispatcher_process(file):
        reached(job, JobState.RUNNING)
        os.kill(processes(object_store, job_id)[1][0], signal.SIGKILL)
        assert ended(job).state is JobState.SUCCEEDED
    outcomes = [attempt.outcome for attempt in job().attempts]
    assert outcomes == [Outcome.CRASHED, Outcome.SUCCEEDED]


def test_redis_and_s3_may_be_away_for_a_while(tmp_path: Path) -> None:
    """Ray is away, too: the jobs are sampling jobs, which do not need it."""
    password = "p" * 32
    with start_redis(tmp_path / "redis", password=password) as redis, start_s3(tmp_path) as s3:
        settings = Settings(
            redis_url=SecretStr(redis.url),
            s3_endpoint=s3.endpoint,
            s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key),
            ray_dashboard_url=NO_RAY,
            lease_ttl_s=1.0,
        )
        store = ObjectStore.from_settings(settings)
        store.ensure_bucket()
        publish_forger(Registry(store), "forger")
        with bulk_deployment(settings) as url:
            port = int(url.rpartition(":")[2])
        settings = settings.model_copy(update={"serve_url": url})
        queue = JobQueue.from_settings(settings)
        early = submit(queue, "job-a", JobKind.SAMPLE, model="forger", n=100)
        with dispatching(settings):
            reached(early, JobState.RUNNING)  # and no further: nobody draws
            redis.stop()
            s3.stop()
            with start_redis(tmp_path / "redis", redis.port, password=password):
                late = submit(queue, "job-b", JobKind.SAMPLE, model="forger", n=1)
                reached(late, JobState.STARTING)  # and no further: there is no S3
                with (
                    start_s3(tmp_path, s3.port, access_key=s3.access_key, secret_key=s3.secret_key),
                    bulk_deployment(settings, port=port),
                ):
                    for job in (early, late):
                        assert ended(job).state is JobState.SUCCEEDED
                        assert [attempt.number for attempt in job().attempts] == [1]
        # It has also ended well with both of them away.
