"""A train job on real stores, on one rank: what it keeps, scores, publishes and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, Outcome
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.attempts import run_attempt
from tests.pushing import push
from tests.training import SQUARE_CLASSES, dirty_squares
from workers.jobs import train
from workers.jobs.context import End

NARROW = {"generator": {"width": 8}, "discriminator": {"width": 8}}
SPEC = {"preset": "modern-conditional", "dataset": "squares", "model": "forger", "kimg": 1.28}
Ended = tuple[End, list[dict[str, Any]]]
"""How it ended, and the data of its events of one type."""


@pytest.fixture
def run_train(
    settings: Settings, object_store: ObjectStore, job_queue: JobQueue, event_log: EventLog
) -> Callable[..., Ended]:
    """Run a train job with this configuration, as the attempt would."""
    push(object_store, "squares", SQUARE_CLASSES, dirty_squares(256, seed=0))

    def run(events: EventType, **config: Any) -> Ended:
        spec = SPEC | {"config": NARROW | {"checkpoint_every_kimg": 0.32} | config}
        job_id, end = run_attempt(train.run, settings, job_queue, JobKind.TRAIN, spec)
        return end, [event.data for event in event_log.read(job_id) if event.type is events]

    return run


def test_the_best_state_by_score_is_published(
    run_train: Callable[..., Ended], object_store: ObjectStore
) -> None:
    end, checkpoints = run_train(EventType.CHECKPOINT, score={"n": 64})
    assert end.outcome is Outcome.SUCCEEDED, end.error
    best = min(checkpoints, key=lambda checkpoint: checkpoint["frechet_distance"])
    card = Registry(object_store).card("forger", 1)
    assert card.metrics["frechet_distance"] == pytest.approx(best["frechet_distance"], abs=1e-4)
    assert card.kimg == pytest.approx(best["kimg"])
    assert not card.rescued


def test_nothing_is_published_that_is_too_far_off(
    run_train: Callable[..., Ended], object_store: ObjectStore
) -> None:
    end, _ = run_train(EventType.STATE, score={"n": 64, "max_distance": 1e-6})
    assert end.outcome is Outcome.FAILED
    assert "above score.max_distance 1e-06: nothing is published" in str(end.error)
    assert not list(object_store.list(keys.MODELS))


def test_a_run_that_cannot_be_saved_says_all_that_was_tried(
    run_train: Callable[..., Ended], object_store: ObjectStore
) -> None:
    hopeless = {"lr": 1.0}
    end, collapses = run_train(
        EventType.COLLAPSE,
        optimizer_g=hopeless,
        optimizer_d=hopeless,
        collapse={"action": "recover", "every_kimg": 0.128, "grace_kimg": 0},
    )
    assert end.outcome is Outcome.FAILED
    actions = [collapse["action"] for collapse in collapses]
    assert len(actions) == 4
    assert actions[-1] == "stopped: nothing is left to try"
    assert str(end.error).startswith("collapsed at ")
    published = Registry(object_store).models()
    if "it never was healthy" in str(end.error):
        assert published == []
    else:
        assert published[0].latest is not None
        assert published[0].latest.rescued
