"""An encode job on real stores: from a dataset's pictures to z beside them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from shared.networks import snapshot
from shared.networks.sampling import sample
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, Outcome
from shared.settings import Settings
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from tests.attempts import run_attempt
from tests.forgers import CLASS_NAMES, SMALL, forger, publish_forger
from tests.pushing import push
from tests.training import squares
from workers.jobs import encode
from workers.jobs.context import End
from workers.training.data import TrainingData

Encode = Callable[..., tuple[str, End]]
N = 11


@pytest.fixture
def run_encode(settings: Settings, job_queue: JobQueue) -> Encode:
    """Run an encode job of this spec, as the attempt would; returns its id and its end."""

    def run(wish: str | None = None, **spec: object) -> tuple[str, End]:
        spec = {"model": "forger", **spec}
        return run_attempt(encode.run, settings, job_queue, JobKind.ENCODE, spec, wish=wish)

    return run


@pytest.fixture
def own(object_store: ObjectStore) -> TrainingData:
    """Pictures of the forger itself, pushed as dataset `own`."""
    publish_forger(Registry(object_store), "forger")
    labels = [i % len(CLASS_NAMES) for i in range(N)]
    pixels = sample(forger(SMALL), seed=1, indices=range(N), labels=labels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    pictures = TrainingData(images, torch.tensor(labels), None)
    push(object_store, "own", CLASS_NAMES, pictures)
    return pictures


def latents_of(store: ObjectStore, job_id: str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(store.get(keys.latents(job_id, 1)))


def test_each_picture_gets_a_z_that_draws_it(
    run_encode: Encode, own: TrainingData, object_store: ObjectStore, settings: Settings
) -> None:
    job_id, end = run_encode(dataset="own", n=20, seed=3)
    assert end.outcome is Outcome.SUCCEEDED, end.error
    found = latents_of(object_store, job_id)
    assert sorted(found["rows"].tolist()) == list(range(N))
    assert own.labels is not None
    assert torch.equal(found["labels"], own.labels[found["rows"]])
    registry = Registry(object_store)
    generator = snapshot.load(*registry.snapshot("forger", 1))
    drawn = generator(found["z"], found["labels"]).add(1).mul(127.5).round().clamp(0, 255)
    errors = ((drawn - own.images[found["rows"]]) / 255).square().mean((1, 2, 3))
    assert torch.allclose(found["errors"], errors, atol=1e-5)
    assert end.result == {
        "model": "forger",
        "version": 1,
        "dataset": "own",
        "dataset_version": end.result["dataset_version"],
        "n": N,
        "mean_error": pytest.approx(errors.mean().item(), abs=1e-5),
        "path": "attempts/1/latents.safetensors",
    }
    assert end.result["mean_error"] < 5e-4

    # The first pictures stand beside what is drawn for them.
    events = EventLog.from_settings(settings).read(job_id)
    (event,) = [event for event in events if event.type is EventType.SAMPLE]
    sheet = np.asarray(Image.open(io.BytesIO(object_store.get(event.data["key"]))))
    first = own.images[found["rows"][0], 0].numpy()
    assert np.array_equal(sheet[2:18, 2:18, 0], first)
    assert abs(sheet[2:18, 20:36, 0].astype(int) - first).mean() < 10

    again, _ = run_encode(dataset="own", n=20, seed=3)
    same = latents_of(object_store, again)
    assert same.keys() == found.keys()
    assert all(torch.equal(same[name], value) for name, value in found.items())
    few, _ = run_encode(dataset="own", n=4, seed=3)
    assert torch.equal(latents_of(object_store, few)["rows"], found["rows"][:4])


def test_classes_that_the_model_does_not_know_are_looked_for(
    run_encode: Encode, own: TrainingData, object_store: ObjectStore
) -> None:
    push(object_store, "plain", [], TrainingData(own.images, None, None))
    unlabelled = torch.full((N,), -1)
    push(object_store, "half", CLASS_NAMES, TrainingData(own.images, unlabelled, None))
    assert own.labels is not None
    for dataset in ("plain", "half"):
        job_id, end = run_encode(dataset=dataset)
        assert end.outcome is Outcome.SUCCEEDED, end.error
        found = latents_of(object_store, job_id)
        assert torch.equal(found["labels"], own.labels[found["rows"]])


def test_pictures_of_another_form_are_refused(
    run_encode: Encode, own: TrainingData, object_store: ObjectStore
) -> None:
    push(object_store, "large", [], TrainingData(squares(8, size=32).images, None, None))
    _, end = run_encode(dataset="large")
    assert end.outcome is Outcome.FAILED
    assert "--size 16" in str(end.error)
    _, gone = run_encode(dataset="none")
    assert gone.outcome is Outcome.FAILED


@pytest.mark.parametrize(("wish", "outcome"), [("cancel", "canceled"), ("pause", "paused")])
def test_it_stops_when_asked(
    run_encode: Encode, own: TrainingData, wish: str, outcome: str
) -> None:
    assert run_encode(wish, dataset="own")[1].outcome == outcome
