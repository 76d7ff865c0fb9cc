"""Jobs through the dispatcher and real Ray Jobs; what runs there is tests/attempt.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.dispatcher.admission import Resources
from services.dispatcher.dispatcher import NO_RAY as REASON_NO_RAY
from services.dispatcher.ray_jobs import RayJobs, RayStatus
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
    is_gone,
    log_lines,
    on_stacks_ray,
    processes,
    reached,
    submit,
    tiny_attempts,
    write_settings,
)

pytestmark = pytest.mark.usefixtures("object_store")  # the bucket exists


@pytest.fixture
def on_ray(settings: Settings, stack: StackState) -> Settings:
    return on_stacks_ray(settings, stack)


@pytest.fixture
def ray(on_ray: Settings, tmp_path: Path) -> RayJobs:
    return tiny_attempts(on_ray, write_settings(on_ray, tmp_path / "settings.json"))


@pytest.fixture
def job_id(settings: Settings) -> str:
    """An id of this test's own, also in Ray, which all tests share."""
    return f"job-{settings.queue_name}"


def test_a_job_runs_and_its_log_is_relayed_once(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str, object_store: ObjectStore
) -> None:
    small = submit(job_queue, job_id)
    cpus = int(ray.capacity().cpus)
    big = submit(job_queue, f"{job_id}-b", workers=cpus + 1)
    with dispatching(on_ray, ray=ray):
        done = ended(small)
        assert big().reason == f"needs {cpus + 1} CPUs: the cluster has {cpus}"
        eventually(lambda: "line 49" in log_lines(on_ray, job_id))
        eventually(lambda: list(object_store.list(keys.events_prefix(job_id))))
    assert done.state is JobState.SUCCEEDED
    assert done.result == {"by": 1}
    lines = log_lines(on_ray, job_id)
    assert [line for line in lines if line.startswith("line ")] == [f"line {i}" for i in range(50)]
    assert lines.count("attempt 1 will finish") == 1
    # No secret gets into the log.
    assert "password ***" in lines
    states = [e.data["state"] for e in history(on_ray, job_id) if e.type is EventType.STATE]
    assert list(dict.fromkeys(states)) == ["queued", "starting", "running", "succeeded"]


def test_a_job_that_does_not_fit_now_says_so_and_starts_later(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str
) -> None:
    cpus = int(ray.capacity().cpus)
    first = submit(job_queue, job_id, behaviour="obey", workers=cpus - 1)
    with dispatching(on_ray, ray=ray):
        reached(first, JobState.RUNNING)
        second = submit(job_queue, f"{job_id}-b", workers=cpus)
        eventually(lambda: second().reason == f"waits for {cpus} CPUs: 1 free of {cpus}")
        third = submit(job_queue, f"{job_id}-c")
        assert ended(third).state is JobState.SUCCEEDED  # it is not in the way of smaller ones
        job_queue.cancel(job_id)
        assert ended(second).state is JobState.SUCCEEDED


def test_a_job_for_which_the_cluster_is_to_grow_waits_in_ray(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str
) -> None:
    cpus = int(ray.capacity().cpus)
    growing = on_ray.model_copy(update={"ray_max_cpus": cpus + 1})
    jobs = [submit(job_queue, f"{job_id}-{i}", behaviour="obey") for i in range(cpus + 2)]
    with dispatching(growing, ray=ray):
        for job in jobs[:cpus]:
            reached(job, JobState.RUNNING)
        # One more is admitted: its process, which finds no place, is what an autoscaler sees.
        name = f"{job_id}-{cpus}-1"
        eventually(lambda: (a := ray.attempts().get(name)) and a.status is RayStatus.PENDING)
        assert jobs[cpus]().state is JobState.STARTING
        reason = f"waits for 1 CPU: 0 free of {cpus + 1}"
        eventually(lambda: jobs[-1]().reason == reason)
        job_queue.cancel(f"{job_id}-0")
        reached(jobs[cpus], JobState.RUNNING)
        for i in range(1, cpus + 2):
            job_queue.cancel(f"{job_id}-{i}")
        for job in jobs:
            assert ended(job).state is JobState.CANCELED


def test_a_dead_attempt_is_followed_by_another(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str
) -> None:
    job = submit(job_queue, job_id, behaviour="die finish")
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
    assert "the last words" in log_lines(on_ray, job_id)


def test_a_result_outweighs_the_death_of_its_attempt(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str
) -> None:
    job = submit(job_queue, job_id, behaviour="write-and-die")
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
    job_id: str,
) -> None:
    job = submit(job_queue, job_id, behaviour=behaviour)
    with dispatching(on_ray, ray=ray):
        eventually(lambda: processes(object_store, job_id))
        if wish:
            reached(job, JobState.RUNNING)
            getattr(job_queue, wish)(job_id)
        assert reached(job, state).attempts[0].outcome == state.value
        eventually(lambda: is_gone(processes(object_store, job_id)[1]))


def test_a_submit_that_was_heard_is_not_made_again(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, job_id: str, object_store: ObjectStore
) -> None:
    job = submit(job_queue, job_id, behaviour="obey")
    job_queue.lease(job_id, owner="somebody", ttl_s=0.1)
    job_queue.begin(job_id, owner="somebody", number=1)
    for _ in range(3):
        ray.submit(job_id, 1, driver=Resources(cpus=1))
    with dispatching(on_ray, ray=ray):
        reached(job, JobState.RUNNING)
        job_queue.cancel(job_id)
        ended(job)
    assert {n: len(pids) for n, pids in processes(object_store, job_id).items()} == {1: 1}


def test_a_name_that_somebody_else_has_on_ray_is_not_taken_for_ours(
    on_ray: Settings, ray: RayJobs, job_queue: JobQueue, tmp_path: Path, job_id: str
) -> None:
    other = on_ray.model_copy(update={"queue_name": f"{on_ray.queue_name}-other"})
    others = tiny_attempts(other, write_settings(other, tmp_path / "other.json"))
    others.submit(job_id, 1, driver=Resources())
    job = submit(job_queue, job_id)
    with dispatching(on_ray, ray=ray):
        done = ended(job)
    assert [a.outcome for a in done.attempts] == [Outcome.CRASHED, Outcome.SUCCEEDED]
    assert "not ours" in str(done.attempts[0].error)


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
