"""The node of an attempt is drained: it ends with a checkpoint, and its job is queued again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shared.draining import drain
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, JobState, JobSubmission, Outcome
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from tests.attempts import run_attempt
from tests.dispatching import eventually
from tests.pushing import push
from tests.training import SQUARE_CLASSES, dirty_squares
from workers.jobs import train
from workers.jobs.context import AttemptContext, End
from workers.training.checkpoints import CheckpointStore

SPEC = {
    "preset": "modern-conditional",
    "dataset": "squares",
    "model": "forger",
    "kimg": 1e6,
    "config": {"generator": {"width": 8}, "discriminator": {"width": 8}},
}
PATIENCE_S = 60.0


@pytest.fixture
def drained(settings: Settings, tmp_path: Path, object_store: ObjectStore) -> Settings:
    """The settings of a node with a drain file."""
    push(object_store, "squares", SQUARE_CLASSES, dirty_squares(256, seed=0))
    return settings.model_copy(update={"drain_file": tmp_path / "drain"})


def test_a_training_ends_with_a_checkpoint_before_the_node_goes(
    drained: Settings, job_queue: JobQueue, object_store: ObjectStore
) -> None:
    drain_file = drained.drain_file
    assert drain_file is not None
    waited: list[bool] = []

    def train_and_drain(context: AttemptContext) -> End | None:
        def pre_stop() -> None:
            eventually(lambda: (seen := job_queue.get(context.job.id).progress) and seen.kimg)
            waited.append(drain(drain_file, patience_s=PATIENCE_S))

        threading.Thread(target=pre_stop).start()
        return train.run(context)

    job_id, end = run_attempt(train_and_drain, drained, job_queue, JobKind.TRAIN, SPEC)
    assert end.outcome is Outcome.INTERRUPTED
    eventually(lambda: waited == [True])
    job = job_queue.get(job_id)
    assert job.state is JobState.QUEUED
    assert job.num_failures == 0  # it costs none of the job's attempts
    assert CheckpointStore(object_store, job_id, 2).load_newest() is not None


def test_a_rank_without_a_heartbeat_passes_it_on(drained: Settings, job_queue: JobQueue) -> None:
    """The node of another rank than the first: the first, elsewhere, hears of it by the queue."""
    assert drained.drain_file is not None
    job_queue.submit("job-ranks", JobSubmission(kind=JobKind.TRAIN, spec=SPEC), owner="tests")
    job_queue.lease("job-ranks", owner="tests", ttl_s=600)
    job_queue.begin("job-ranks", owner="tests", number=1)
    second = AttemptContext.open("job-ranks", 1, drained)
    elsewhere = drained.model_copy(update={"drain_file": None})
    with AttemptContext.open("job-ranks", 1, elsewhere) as first:
        with second.watching():
            assert first.should_stop() is None
            assert not drain(drained.drain_file, patience_s=0.1)
            eventually(lambda: first.should_stop() == "interrupt")
        assert drain(drained.drain_file, patience_s=PATIENCE_S)
