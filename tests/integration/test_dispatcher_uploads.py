"""Uploads go when no attempt can want them any more, and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import redis

from services.dispatcher.uploads import KEPT, KEPT_UNKNOWN, UploadSweep
from shared.queue.jobs import JobQueue
from shared.queue.keys import QueueKeys
from shared.schemas.jobs import JobKind, JobState, Outcome
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from tests.dispatching import NO_RAY, dispatching, eventually, submit

MOMENT = timedelta(minutes=1)


def upload(store: ObjectStore, queue: JobQueue, job_id: str) -> None:
    """An upload and its job."""
    store.put(keys.upload(job_id), b"pictures")
    submit(queue, job_id, JobKind.INGEST, upload_key=keys.upload(job_id))


def run(queue: JobQueue, job_id: str, outcome: Outcome | None) -> None:
    """Run the job's next attempt to this end; None: it goes on."""
    leased = queue.lease(job_id, owner="tests", ttl_s=600)
    assert leased is not None
    begun = queue.begin(job_id, owner="tests", number=leased.token + 1)
    queue.heartbeat(job_id, begun.token)
    if outcome:
        queue.finish(job_id, begun.token, outcome)


def left(store: ObjectStore) -> set[str]:
    return {info.key.removeprefix(keys.UPLOADS) for info in store.list(keys.UPLOADS)}


def test_each_upload_stays_as_long_as_it_may_be_wanted(
    object_store: ObjectStore, job_queue: JobQueue
) -> None:
    for job_id, outcome in (
        ("succeeded", Outcome.SUCCEEDED),
        ("failed", Outcome.FAILED),
        ("crashed", Outcome.CRASHED),  # and is tried again
        ("canceled", Outcome.CANCELED),
        ("running", None),
        ("retried", Outcome.FAILED),
    ):
        upload(object_store, job_queue, job_id)
        run(job_queue, job_id, outcome)
    upload(object_store, job_queue, "queued")
    upload(object_store, job_queue, "paused")
    job_queue.pause("paused")
    job_queue.retry("retried")
    object_store.put(keys.upload("unknown"), b"its request died")
    sweep = UploadSweep(job_queue, object_store)
    now = datetime.now(UTC)
    everything = left(object_store)
    assert len(everything) == 9

    sweep.sweep(now)
    assert left(object_store) == everything
    sweep.sweep(now + KEPT[JobState.SUCCEEDED] + MOMENT)
    assert left(object_store) == everything - {"succeeded"}
    sweep.sweep(now + KEPT[JobState.FAILED] - MOMENT)
    assert left(object_store) == everything - {"succeeded"}
    assert max(KEPT.values()) == KEPT_UNKNOWN
    sweep.sweep(now + KEPT_UNKNOWN + MOMENT)
    sweep.sweep(now + KEPT_UNKNOWN + MOMENT)
    assert left(object_store) == {"queued", "paused", "running", "crashed", "retried"}


def test_a_dispatcher_sweeps(
    settings: Settings, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    for job_id in ("old", "new"):
        upload(object_store, job_queue, job_id)
        run(job_queue, job_id, Outcome.SUCCEEDED)
    # The end of one of them, moved back by hand.
    old = str(int((datetime.now(UTC) - timedelta(hours=1)).timestamp() * 1000))
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as connection:
        connection.hset(QueueKeys(settings.queue_name).key("job", "old"), "ended_at", old)
    with dispatching(settings.model_copy(update={"ray_dashboard_url": NO_RAY})):
        eventually(lambda: left(object_store) == {"new"})
