"""An evaluate job on real stores: from a published model to scores beside its version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch

from shared.clock import now
from shared.ids import new_job_id
from shared.networks import snapshot
from shared.networks.catalog import build_generator
from shared.queue.jobs import JobQueue
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import JobKind, Outcome
from shared.schemas.models import ModelCard, SnapshotConfig, Task
from shared.schemas.networks import GeneratorConfig
from shared.settings import Settings
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.attempts import run_attempt
from tests.pushing import push
from tests.training import SQUARE_CLASSES, dirty_squares, squares
from workers.jobs import evaluate
from workers.jobs.context import End
from workers.training.data import TrainingData

SIZE = 8
Evaluate = Callable[..., End]


def publish(store: ObjectStore, trained_on: DatasetManifest, *, num_classes: int) -> ModelCard:
    """An untrained generator as if it had been trained on this dataset."""
    torch.manual_seed(0)
    config = GeneratorConfig(size=SIZE, width=8, z_dim=8, num_classes=num_classes)
    card = ModelCard(
        model="forger", version=0, job_id=new_job_id(), attempt=1, recipe="gan", preset="modern",
        dataset=trained_on.name, dataset_version=trained_on.version, kimg=1.0, seed=0,
        tasks=[Task.GENERATE], size=SIZE, channels=1, num_parameters=1, weights_sha256="",
        weights_bytes=0, config_sha256="", created_at=now(),
    )  # fmt: skip
    weights = snapshot.to_bytes(build_generator(config))
    return Registry(store).publish(
        card, weights, SnapshotConfig(generator=config, tasks=[Task.GENERATE])
    )


@pytest.fixture
def run_evaluate(settings: Settings, job_queue: JobQueue) -> Evaluate:
    """Run an evaluate job of this spec, as the attempt would."""

    def run(wish: str | None = None, **spec: object) -> End:
        spec = {"n": 200, **spec}
        return run_attempt(evaluate.run, settings, job_queue, JobKind.EVALUATE, spec, wish=wish)[1]

    return run


def test_a_model_is_scored_against_pictures_that_it_never_saw(
    run_evaluate: Evaluate, object_store: ObjectStore, job_queue: JobQueue
) -> None:
    seen = push(object_store, "squares", SQUARE_CLASSES, dirty_squares(256, seed=0))
    push(object_store, "squares-test", SQUARE_CLASSES, dirty_squares(240, seed=1))
    card = publish(object_store, seen, num_classes=4)

    ends = [run_evaluate(model="forger", dataset="squares-test") for _ in range(2)]
    assert ends[0].outcome is Outcome.SUCCEEDED, ends[0].error
    assert ends[0].result == ends[1].result
    assert job_queue.list()[0][0].result == ends[1].result

    newest, first = Registry(object_store).evaluations("forger", card.version)
    assert newest.scores == first.scores
    assert newest.created_at > first.created_at
    assert (newest.held_out, newest.n, newest.num_reference) == (True, 200, 200)
    assert newest.yardstick == first.yardstick  # it was trained once
    assert (newest.yardstick.dataset, newest.yardstick.num_classes) == ("squares", 4)
    kept = object_store.get(keys.dataset_yardstick("squares", seen.version, "v1-s0"))
    assert newest.yardstick.sha256 == hashlib.sha256(kept).hexdigest()
    distance = newest.scores["frechet_distance"]
    assert distance.floor < distance.value
    accuracy = newest.scores["classification_accuracy"]
    assert (accuracy.floor, accuracy.ceiling) == (newest.yardstick.accuracy, 0.25)

    Registry(object_store).move_alias("forger", "latest", card.version, by="tests")
    datasets.delete(object_store, "squares")
    assert not list(object_store.list(keys.dataset_prefix("squares")))
    gone = run_evaluate(model="forger", dataset="squares-test")
    assert gone.outcome is Outcome.FAILED
    assert "squares" in str(gone.error)


def test_without_other_pictures_one_half_is_held_against_the_other(
    run_evaluate: Evaluate, object_store: ObjectStore
) -> None:
    pictures = dirty_squares(256, seed=0)
    seen = push(object_store, "shapes", [], TrainingData(pictures.images, None, None))
    card = publish(object_store, seen, num_classes=0)
    end = run_evaluate(model="forger", dataset="shapes")
    assert end.outcome is Outcome.SUCCEEDED, end.error
    (evaluation,) = Registry(object_store).evaluations("forger", card.version)
    assert (evaluation.held_out, evaluation.num_reference) == (False, 128)
    assert evaluation.yardstick.num_classes == 4  # quarter turns
    assert not {"label_agreement", "class_entropy", "classification_accuracy"} & set(
        evaluation.scores
    )


def test_pictures_of_another_form_are_no_reference(
    run_evaluate: Evaluate, object_store: ObjectStore
) -> None:
    publish(
        object_store,
        push(object_store, "squares", SQUARE_CLASSES, squares(64, size=SIZE)),
        num_classes=4,
    )
    push(object_store, "large", SQUARE_CLASSES, squares(64, size=16))
    end = run_evaluate(model="forger", dataset="large")
    assert end.outcome is Outcome.FAILED
    assert "16 x 16 x 1" in str(end.error)
    assert "--size 8" in str(end.error)


@pytest.mark.parametrize(("wish", "outcome"), [("cancel", "canceled"), ("pause", "paused")])
def test_it_stops_when_asked(
    run_evaluate: Evaluate, object_store: ObjectStore, wish: str, outcome: str
) -> None:
    publish(
        object_store,
        push(object_store, "squares", SQUARE_CLASSES, squares(64, size=SIZE)),
        num_classes=4,
    )
    assert run_evaluate(wish, model="forger", dataset="squares").outcome == outcome


def test_a_damaged_yardstick_is_named(run_evaluate: Evaluate, object_store: ObjectStore) -> None:
    seen = push(object_store, "squares", SQUARE_CLASSES, dirty_squares(64, seed=0))
    publish(object_store, seen, num_classes=4)
    key = keys.dataset_yardstick("squares", seen.version, "v1-s0")
    object_store.put(key, b"no tensors")
    end = run_evaluate(model="forger", dataset="squares")
    assert end.outcome is Outcome.CRASHED
    assert key in str(end.error)
