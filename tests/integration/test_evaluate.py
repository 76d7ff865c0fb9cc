"""An evaluate job on real stores: from a published model to scores beside its version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

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
from shared.schemas.specs import EvaluateSpec
from shared.settings import Settings
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.attempts import run_attempt
from tests.inceptions import write_drawn
from tests.pushing import push
from tests.training import SQUARE_CLASSES, as_in_an_attempt, dirty_squares, squares
from workers.evaluation.inception_weights import load_inception
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
    """Run an evaluate job of this spec, as the attempt would; Inception's weights are `weights`."""

    def run(wish: str | None = None, weights: Path | None = None, **spec: object) -> End:
        spec = {"n": 200, **spec}
        here = settings.model_copy(update={"inception_weights": weights})
        return run_attempt(evaluate.run, here, job_queue, JobKind.EVALUATE, spec, wish=wish)[1]

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
    assert newest.features == first.features  # the yardstick was trained once
    assert newest.yardstick is not None
    assert (newest.yardstick.dataset, newest.yardstick.num_classes) == ("squares", 4)
    kept = object_store.get(keys.dataset_yardstick("squares", seen.version, "v1-s0"))
    assert newest.features == f"yardstick:{hashlib.sha256(kept).hexdigest()}"
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
    assert evaluation.yardstick is not None
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


def test_it_is_scored_in_the_features_of_inception(
    settings: Settings, object_store: ObjectStore, job_queue: JobQueue, tmp_path: Path
) -> None:
    seen = push(object_store, "squares", SQUARE_CLASSES, dirty_squares(8, seed=0))
    push(object_store, "squares-test", SQUARE_CLASSES, dirty_squares(8, seed=1))
    card = publish(object_store, seen, num_classes=4)
    weights = write_drawn(tmp_path)
    # A job would draw 100 pictures: minutes of this network.
    spec = EvaluateSpec.model_construct(
        model="forger", dataset="squares-test", n=8, features="inception"
    )
    with as_in_an_attempt():
        _, end = run_attempt(
            lambda context: evaluate.evaluate(context, spec),
            settings.model_copy(update={"inception_weights": weights}),
            job_queue,
            JobKind.EVALUATE,
            spec.model_dump(),
        )
    assert end.outcome is Outcome.SUCCEEDED, end.error
    (evaluation,) = Registry(object_store).evaluations("forger", card.version)
    assert (evaluation.n, evaluation.num_reference, evaluation.num_neighbours) == (8, 8, 0)
    assert evaluation.features == f"inception:{load_inception(weights)[1]}"
    assert evaluation.yardstick is None
    assert end.result == {
        "model": "forger",
        "version": card.version,
        "n": 8,
        "seed": 0,
        "features": evaluation.features,
        "scores": {name: score.model_dump() for name, score in evaluation.scores.items()},
    }
    for name in ("inception_frechet_distance", "inception_kernel_distance"):
        score = evaluation.scores.pop(name)
        assert score.floor < min(score.value, score.ceiling), name
    (found,) = evaluation.scores.items()
    assert found[0] == "inception_score"
    assert all(1 <= value <= 1008 for value in vars(found[1]).values())
    (job,) = job_queue.list()[0]
    assert job.progress is not None
    assert (job.progress.done, job.progress.of) == (4, 4)  # batches: one of each set


def test_inception_is_refused_before_anything_is_read(
    run_evaluate: Evaluate, object_store: ObjectStore, tmp_path: Path
) -> None:
    asked = {"model": "nobody", "dataset": "nothing", "features": "inception"}
    without = run_evaluate(**asked)
    assert without.outcome is Outcome.FAILED
    assert "name the file by ELMYR_INCEPTION_WEIGHTS" in str(without.error)
    damaged = run_evaluate(None, tmp_path / "gone.safetensors", **asked)
    assert damaged.outcome is Outcome.FAILED
    assert f"cannot read {tmp_path / 'gone.safetensors'}" in str(damaged.error)


def test_inception_stops_when_asked(
    run_evaluate: Evaluate, object_store: ObjectStore, tmp_path: Path
) -> None:
    seen = push(object_store, "squares", SQUARE_CLASSES, dirty_squares(8, seed=0))
    publish(object_store, seen, num_classes=4)
    asked = {"model": "forger", "dataset": "squares", "features": "inception"}
    assert run_evaluate("cancel", write_drawn(tmp_path), **asked).outcome == "canceled"
