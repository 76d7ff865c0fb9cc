"""Pause, resume, cancel and retry over HTTP: a run never starts again from its beginning."""

from __future__ import annotations

import pytest

from services.client import Client
from shared.errors import Conflict
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, JobState
from tests.roads import NEVER, kimg_of, spec, until_state, until_type, wait_for


def test_a_run_that_is_paused_and_canceled_goes_on_where_it_was(
    client: Client, ingested: Job
) -> None:
    del ingested
    # The only checkpoints are those of the two stops and of the end.
    job = client.submit(
        "train", spec(workers=1, kimg=60.0, model="stopped", checkpoint_every_kimg=NEVER)
    )

    # Pause.
    events = client.events(job.id)
    seen = until_type(events, EventType.METRIC)
    client.pause(job.id)
    seen += until_state(events, JobState.PAUSED)
    (paused_at,) = kimg_of(seen, EventType.CHECKPOINT)
    assert paused_at >= kimg_of(seen, EventType.METRIC)[-1]
    assert client.job(job.id).state is JobState.PAUSED
    with pytest.raises(Conflict):
        client.retry(job.id)

    # Resume, and cancel.
    client.resume(job.id)
    seen = until_type(events, EventType.METRIC)
    assert kimg_of(seen, EventType.METRIC)[0] > paused_at
    client.cancel(job.id)
    seen += until_type(events, EventType.DONE)
    (canceled_at,) = kimg_of(seen, EventType.CHECKPOINT)
    assert canceled_at > paused_at
    assert client.job(job.id).state is JobState.CANCELED

    # Retry, and come to the end.
    client.retry(job.id)
    seen = list(client.events(job.id, after=seen[-1].id))
    metrics = kimg_of(seen, EventType.METRIC)
    assert metrics[0] > canceled_at
    assert metrics[-1] == pytest.approx(60, abs=0.1)
    ended = client.job(job.id)
    assert ended.result == {"model": "stopped", "version": 1}
    assert [attempt.outcome for attempt in ended.attempts] == ["paused", "canceled", "succeeded"]
    assert ended.num_failures == 0


def test_a_run_may_be_paused_before_its_first_step(client: Client, ingested: Job) -> None:
    del ingested
    job = client.submit("train", spec("lecture", workers=1, kimg=2.0, model="early"))
    until_state(client.events(job.id), JobState.RUNNING)  # its heart beats; torch is to come
    client.pause(job.id)
    wait_for(lambda: client.job(job.id).state is JobState.PAUSED, within_s=30, what="it is paused")
    client.resume(job.id)
    ended = client.wait(job.id, timeout_s=120)
    assert [attempt.outcome for attempt in ended.attempts] == ["paused", "succeeded"]
