"""Jobs through the dispatcher and real Ray Jobs: what runs is tests/attempt.py, all else is real."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from services.dispatcher.dispatcher import NO_RAY as REASON_NO_RAY
from services.dispatcher.ray_jobs import RayJobs
from services.local.identity import load_identity
from services.local.state import StackState
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobState, Outcome
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from tests.dispatching import (
    NO_RAY,
    dispatching,
    ended,
    eventually,
    history,
    log_lines,
    processes,
    reached,
    submit,
    tiny_attempts,
    write_settings,
)

pytestmark = pytest.mark.usefixtures("object_store")  # the bucket exists


@pytest.fixture
def on_ray(settings: Settings, stack: StackState) -> Settings:
    """This test's own queue and bucket, on the Ray of the stack."""
    return settings.model_copy(
        update={
            "ray_dashboard_url": stack.dashboard_url,
            "ray_auth_token": SecretStr(load_identity(stack.data_dir).ray_token),
            "stop_grace_s": 2.0,
            "retry_base_s": 0.1,
        }
    )


@pytest.fixture
def ray(on_ray: Settings, tmp_path: Path) -> RayJobs:
    return tiny_attempts(on_ray, write_settings(on_ray, tmp_path / "settings.json"))


def is_gone(pids: list[int]) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


def test_a_job_runs_and_its_log_is_relayed_once(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, object_store: ObjectStore
) -> None:
    small = submit(job_queue, "job-a")
    big = submit(job_queue, "job-b", workers=8)
    with dispatching(on_ray, ray=ray):
        done = ended(small)
        assert big().reason == "needs 8 CPUs: the cluster has 2"
        eventually(lambda: "line 49" in log_lines(on_ray, "job-a"))
        eventually(lambda: list(object_store.list(keys.events_prefix("job-a"))))
    assert done.state is JobState.SUCCEEDED
    assert done.result == {"by": 1}
    lines = log_lines(on_ray, "job-a")
    assert [line for line in lines if line.startswith("line ")] == [f"line {i}" for i in range(50)]
    assert lines.count("attempt 1 will finish") == 1
    # No secret gets into the log.
    assert "password ***" in lines
    states = [e.data["state"] for e in history(on_ray, "job-a") if e.type is EventType.STATE]
    assert states[-3:] == ["starting", "running", "succeeded"] or states[-1] == "succeeded"


def test_a_job_that_does_not_fit_now_says_so_and_starts_later(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue
) -> None:
    first = submit(job_queue, "job-a", behaviour="obey")
    with dispatching(on_ray, ray=ray):
        reached(first, JobState.RUNNING)
        second = submit(job_queue, "job-b", workers=2)
        eventually(lambda: second().reason == "waits for 2 CPUs: 1 free of 2")
        third = submit(job_queue, "job-c")
        assert ended(third).state is JobState.SUCCEEDED  # it is not in the way of smaller ones
        job_queue.cancel("job-a")
        assert ended(second).state is JobState.SUCCEEDED


def test_a_dead_attempt_is_followed_by_another(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue
) -> None:
    job = submit(job_queue, "job-a", behaviour="die finish")
    with dispatching(on_ray, ray=ray):
        done = ended(job)
    assert done.state is JobState.SUCCEEDED
    assert [(a.number, a.outcome) for a in done.attempts] == [
        (1, Outcome.CRASHED),
        (2, Outcome.SUCCEEDED),
    ]
    error = str(done.attempts[0].error)
    assert "exit code 1" in error
    assert "the last words" in error
    assert on_ray.redis_url.get_secret_value() not in error
    assert "the last words" in log_lines(on_ray, "job-a")


def test_a_result_outweighs_the_death_of_its_attempt(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue
) -> None:
    job = submit(job_queue, "job-a", behaviour="write-and-die")
    with dispatching(on_ray, ray=ray):
        done = ended(job)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"by": 1})
    assert len(done.attempts) == 1


@pytest.mark.parametrize(
    ("behaviour", "wish", "state"),
    [
        ("obey", "cancel", JobState.CANCELED),
        ("obey", "pause", JobState.PAUSED),
        ("deaf", "cancel", JobState.CANCELED),
        ("linger", None, JobState.SUCCEEDED),
    ],
)
def test_an_attempt_that_is_not_wanted_any_more_is_gone_soon(
    behaviour: str,
    wish: str | None,
    state: JobState,
    on_ray: Settings,
    ray: RayJobs,
    job_queue: JobQueue,
    object_store: ObjectStore,
) -> None:
    job = submit(job_queue, "job-a", behaviour=behaviour)
    with dispatching(on_ray, ray=ray):
        eventually(lambda: processes(object_store, "job-a"))
        if wish:
            reached(job, JobState.RUNNING)
            getattr(job_queue, wish)("job-a")
        assert reached(job, state).attempts[0].outcome == state.value
        eventually(lambda: is_gone(processes(object_store, "job-a")[1]))


def test_a_submit_that_was_heard_is_not_made_again(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, object_store: ObjectStore
) -> None:
    from services.dispatcher.admission import Resources

    job = submit(job_queue, "job-a", behaviour="obey")
    job_queue.lease("job-a", owner="somebody", ttl_s=0.1)
    job_queue.begin("job-a", owner="somebody", number=1)
    for _ in range(3):
        ray.submit("job-a", 1, driver=Resources(cpus=1))
    with dispatching(on_ray, ray=ray):
        reached(job, JobState.RUNNING)
        job_queue.cancel("job-a")
        ended(job)
    assert {n: len(pids) for n, pids in processes(object_store, "job-a").items()} == {1: 1}


def test_silence_of_ray_proves_nothing(
    settings: Settings, job_queue: JobQueue, event_log: EventLog
) -> None:
    """Ray is down and the heartbeat is old: the attempt is not declared dead, others wait."""
    blind = settings.model_copy(
        update={"ray_dashboard_url": NO_RAY, "heartbeat_timeout_s": 0.01, "lease_ttl_s": 0.1}
    )
    job = submit(job_queue, "job-a")
    job_queue.lease("job-a", owner="somebody", ttl_s=0.01)
    job_queue.begin("job-a", owner="somebody", number=1)
    job_queue.heartbeat("job-a", 1)
    other = submit(job_queue, "job-b")
    with dispatching(blind):
        eventually(lambda: other().reason == REASON_NO_RAY)
        submit(job_queue, "job-c")
        eventually(lambda: job_queue.get("job-c").reason == REASON_NO_RAY)
    assert job().state is JobState.RUNNING
    assert [attempt.state for attempt in job().attempts] == ["running"]
