"""Sampling jobs through a real dispatcher and the real bulk application; Ray is down all the time,
which must not matter."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest

from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, JobState, Outcome
from shared.schemas.specs import SAMPLE_CHUNK
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.storage.runs import RunStore
from tests.dispatching import (
    NO_RAY,
    bulk_deployment,
    dispatching,
    ended,
    eventually,
    history,
    reached,
    submit,
)
from tests.forgers import publish_forger


@pytest.fixture
def sampling(settings: Settings, object_store: ObjectStore) -> Settings:
    """Settings of a deployment without Ray and with a model `forger` of one version."""
    publish_forger(Registry(object_store), "forger")
    return settings.model_copy(update={"ray_dashboard_url": NO_RAY, "lease_ttl_s": 1.0})


@pytest.fixture
def served(sampling: Settings) -> Iterator[Settings]:
    with bulk_deployment(sampling) as url:
        yield sampling.model_copy(update={"serve_url": url})


def names(store: ObjectStore, job_id: str) -> list[str]:
    """The pictures that are there, in order."""
    found = []
    for info in store.list(keys.sampled_chunks(job_id)):
        with zipfile.ZipFile(io.BytesIO(store.get(info.key))) as chunk:
            found += chunk.namelist()
    return found


def test_a_job_is_drawn_chunk_by_chunk(
    served: Settings, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    n = 2 * SAMPLE_CHUNK + 5
    job = submit(job_queue, "job-a", JobKind.SAMPLE, model="forger", n=n, seed=3)
    with dispatching(served):
        done = ended(job)
    assert done.state is JobState.SUCCEEDED
    assert done.result == {"model": "forger", "version": 1, "n": n, "num_chunks": 3}
    assert (done.progress.done, done.progress.of) == (n, n)
    assert [attempt.number for attempt in done.attempts] == [1]
    assert names(object_store, "job-a") == [f"{i:07d}.png" for i in range(n)]
    held = RunStore(object_store).result("job-a")
    assert held is not None
    assert held.result == done.result
    metrics = [e.data for e in history(served, "job-a") if e.type is EventType.METRIC]
    assert metrics[-1]["done"] == metrics[-1]["of"] == n


def test_a_hopeless_job_is_not_tried_again(served: Settings, job_queue: JobQueue) -> None:
    unknown = submit(job_queue, "job-a", JobKind.SAMPLE, model="nobody", n=1)
    wrong = submit(job_queue, "job-b", JobKind.SAMPLE, model="forger", n=1, label="ufo")
    with dispatching(served):
        for job in (ended(unknown), ended(wrong)):
            assert job.state is JobState.FAILED
            assert [attempt.outcome for attempt in job.attempts] == [Outcome.FAILED]
    assert "nobody" in str(unknown().attempts[0].error)
    assert "ufo" in str(wrong().attempts[0].error)


def test_a_busy_or_absent_deployment_is_waited_for(sampling: Settings, job_queue: JobQueue) -> None:
    # Room for one chunk at a time: the others in flight are answered 429.
    tight = sampling.model_copy(update={"serve_max_waiting_images": SAMPLE_CHUNK})
    with bulk_deployment(tight) as url:
        port = int(url.rpartition(":")[2])
    tight = tight.model_copy(update={"serve_url": url})
    job = submit(job_queue, "job-a", JobKind.SAMPLE, model="forger", n=4 * SAMPLE_CHUNK)
    with dispatching(tight):
        reached(job, JobState.RUNNING)
        with bulk_deployment(tight, port=port):
            assert ended(job).state is JobState.SUCCEEDED
    assert len(job().attempts) == 1


def test_a_pause_keeps_what_is_drawn_and_the_version_that_it_was_drawn_from(
    served: Settings, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    n = 5000 * SAMPLE_CHUNK  # far more than can be drawn meanwhile
    job = submit(job_queue, "job-a", JobKind.SAMPLE, model="forger", n=n)
    with dispatching(served):
        eventually(lambda: list(object_store.list(keys.sampled_chunks("job-a"))))
        job_queue.pause("job-a")
        reached(job, JobState.PAUSED)
        before = {info.key: info.etag for info in object_store.list(keys.sampled_chunks("job-a"))}
        assert 0 < len(before) < 5000
        publish_forger(Registry(object_store), "forger", seed=7)  # moves `latest`
        job_queue.resume("job-a")
        reached(job, JobState.RUNNING)
        eventually(lambda: len(list(object_store.list(keys.sampled_chunks("job-a")))) > len(before))
        job_queue.cancel("job-a")
        assert ended(job).state is JobState.CANCELED
    after = {info.key: info.etag for info in object_store.list(keys.sampled_chunks("job-a"))}
    assert before.items() <= after.items()
    assert [attempt.outcome for attempt in job().attempts] == [Outcome.PAUSED, Outcome.CANCELED]
    assert b'"version":1' in object_store.get(keys.sampled_model("job-a"))


def test_another_dispatcher_goes_on_with_the_same_attempt(
    sampling: Settings, job_queue: JobQueue
) -> None:
    with bulk_deployment(sampling) as url:
        port = int(url.rpartition(":")[2])
    served = sampling.model_copy(update={"serve_url": url})
    job = submit(job_queue, "job-a", JobKind.SAMPLE, model="forger", n=3 * SAMPLE_CHUNK)
    with dispatching(served):
        reached(job, JobState.RUNNING)  # and no further: nobody draws
    with dispatching(served), bulk_deployment(served, port=port):
        assert ended(job).state is JobState.SUCCEEDED
    assert [attempt.number for attempt in job().attempts] == [1]


def test_what_an_earlier_attempt_has_written_as_its_result_holds(
    served: Settings, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    job = submit(job_queue, "job-a", JobKind.SAMPLE, model="forger", n=1)
    with dispatching(served):
        ended(job)
    # Redis forgets; the store does not.
    other = served.model_copy(update={"queue_name": f"{served.queue_name}-anew"})
    again = submit(JobQueue.from_settings(other), "job-a", JobKind.SAMPLE, model="forger", n=1)
    with dispatching(other):
        assert ended(again).result == job().result
    assert again().attempts[0].number == 2  # no number comes twice, whatever Redis forgets
