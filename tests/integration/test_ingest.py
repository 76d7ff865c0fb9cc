"""An ingest job, from the upload in the store to the version that a training loads.

The cluster has one CPU and it is taken, as it is by the job's own lease: the decoding must not wait
for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import ray

from shared.errors import InvalidInput
from shared.ids import new_job_id
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, JobSubmission, Outcome, Progress
from shared.settings import Settings
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from tests.attempts import ended
from tests.uploads import picture, png, png_header, saved, tar_of, zip_of
from workers.jobs import ingest
from workers.jobs.context import AttemptContext, End
from workers.training.data import load

EXAMPLE = Path("examples/fashion-mnist")

Ingest = Callable[..., End]


class Attempt(AttemptContext):
    """Remembers every progress; the queue hears only the newest, twice a second."""

    told: list[Progress] | None = None

    def progress(self, progress: Progress) -> None:
        if self.told is not None:
            self.told.append(progress)
        super().progress(progress)


@ray.remote(num_cpus=1)
class Lease:
    """Holds the cluster's only CPU."""

    def held(self) -> bool:
        return True


@pytest.fixture(scope="module", autouse=True)
def full_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
            object_store_memory=2**28,
        )  # fmt: skip
        lease = cast(Any, Lease).remote()
        assert ray.get(lease.held.remote())
        yield
        ray.shutdown()


@pytest.fixture
def run_ingest(
    settings: Settings, object_store: ObjectStore, job_queue: JobQueue
) -> Callable[..., End]:
    """Run an ingest of these bytes as dataset `set`, as the attempt would."""

    def run(
        data: bytes, *, wish: str | None = None, told: list[Progress] | None = None, **spec: Any
    ) -> End:
        job_id = new_job_id()
        object_store.put(keys.upload(job_id), data)
        spec = {"dataset": "set", "upload_key": keys.upload(job_id), **spec}
        job_queue.submit(job_id, JobSubmission(kind=JobKind.INGEST, spec=spec), owner="tests")
        job_queue.lease(job_id, owner="tests", ttl_s=600)
        job_queue.begin(job_id, owner="tests", number=1)
        if wish:
            getattr(job_queue, wish)(job_id)
        context = Attempt.open(job_id, 1, settings)
        assert isinstance(context, Attempt)
        context.told = told
        with context:
            end = ended(lambda: ingest.run(context))
            context.finish(end)
        return end

    return run


def folder_of(path: Path) -> bytes:
    return tar_of({file.name: file.read_bytes() for file in sorted(path.iterdir())})


def test_the_shipped_images_become_a_dataset(
    run_ingest: Ingest, object_store: ObjectStore, job_queue: JobQueue, event_log: EventLog
) -> None:
    told: list[Progress] = []
    end = run_ingest(folder_of(EXAMPLE), told=told, size=32, fit="pad", source="shipped")

    assert end.outcome is Outcome.SUCCEEDED, end.error
    assert end.result is not None
    manifest = datasets.manifest(object_store, "set")
    assert end.result == {
        "dataset": "set",
        "version": manifest.version,
        "num_images": 10_000,
        "num_refused": 0,
        "num_duplicates": 0,
        "class_names": (EXAMPLE / "classes.txt").read_text().splitlines(),
    }
    assert (manifest.size, manifest.channels, manifest.num_classes) == (32, 1, 10)
    assert manifest.class_counts == [1000] * 10
    assert (manifest.source, manifest.has_captions) == ("shipped", False)

    data = load(object_store, manifest)
    assert data.images.shape == (10_000, 1, 32, 32)
    assert data.labels is not None
    assert data.labels[:4].tolist() == [9, 2, 1, 1]  # boot, pullover, trousers, trousers
    assert data.images[:, :, :2].max() == 0  # padded
    assert data.texts is None

    (job,), _ = job_queue.list()
    assert job.result == end.result
    assert told[-1] == Progress(done=10_000, of=10_000)
    assert told == sorted(told, key=lambda progress: progress.done or 0)
    lines = [event.data["line"] for event in event_log.read(job.id) if event.type is EventType.LOG]
    assert lines[0] == "10000 images, made 32 x 32 x 1"


def test_a_folder_of_images_with_captions_duplicates_and_refusals(
    run_ingest: Ingest, object_store: ObjectStore
) -> None:
    end = run_ingest(
        zip_of(
            {
                "cats/1.png": png(1),
                "cats/2.jpg": saved(picture(2, size=40), "JPEG"),
                "dogs/3.webp": saved(picture(3), "WEBP", lossless=True),
                "dogs/3.txt": b"a good dog",
                "dogs/4.png": png(1),
                "dogs/5.png": png_header(60_000, 60_000),
                "6.png": png(6),
            }
        ),
        filename="pets.zip",
    )

    assert end.outcome is Outcome.SUCCEEDED, end.error
    manifest = datasets.manifest(object_store, "set")
    assert (manifest.size, manifest.channels) == (16, 3)
    assert (manifest.num_images, manifest.num_duplicates, manifest.num_refused) == (3, 1, 2)
    assert (manifest.class_names, manifest.class_counts) == (["cats", "dogs"], [2, 1])
    assert {refusal.path for refusal in manifest.refused} == {"6.png", "dogs/5.png"}
    assert manifest.source == "pets.zip"
    data = load(object_store, manifest)
    assert data.texts == [None, None, "a good dog"]
    assert (data.images[0].permute(1, 2, 0).numpy() == picture(1)).all()
    assert (data.images[2].permute(1, 2, 0).numpy() == picture(3)).all()


def test_the_same_content_gives_the_same_version(
    run_ingest: Ingest, object_store: ObjectStore
) -> None:
    files = {f"{number}.png": png(number) for number in range(5)}
    first = run_ingest(zip_of(files))
    manifest = datasets.manifest(object_store, "set")
    other = run_ingest(zip_of(files | {"9.png": png(9)}))
    again = run_ingest(tar_of(dict(reversed(files.items())), "xz"))

    versions = [end.result["version"] for end in (first, other, again) if end.result]
    assert versions[0] == versions[2] != versions[1]
    assert datasets.manifest(object_store, "set") == manifest
    for shard in manifest.shards:
        data = datasets.read_shard(object_store, shard)
        assert hashlib.sha256(data).hexdigest() == shard.sha256


def test_content_size_label_and_caption_each_change_the_version(run_ingest: Ingest) -> None:
    files = {"a/1.png": png(1), "b/2.png": png(2)}
    ends = [
        run_ingest(zip_of(files)),
        run_ingest(zip_of(files), size=8),
        run_ingest(zip_of({"a/1.png": png(1), "c/2.png": png(2)})),
        run_ingest(zip_of(files | {"a/1.txt": b"one"})),
        run_ingest(zip_of({"a/1.png": png(3), "b/2.png": png(2)})),
    ]

    assert len({end.result["version"] for end in ends if end.result}) == len(ends)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no archive", "no zip"),
        (zip_of({}), "0 images could be taken and 0 files were refused"),
        (zip_of({"a.png": b"\x89PNG\r\n\x1a\n"}), "0 images could be taken"),
        (zip_of({"a.png": png(1), "b.pdf": b"%PDF", "c.pdf": b"%PDF"}), "2 files were refused"),
    ],
)
def test_a_bad_upload_fails_the_job_for_good(
    data: bytes, reason: str, run_ingest: Ingest, object_store: ObjectStore
) -> None:
    end = run_ingest(data)

    assert end.outcome is Outcome.FAILED
    assert end.error is not None
    assert InvalidInput.__name__ in end.error
    assert reason in end.error
    assert datasets.list_datasets(object_store) == []


def test_an_upload_that_is_no_longer_kept_is_asked_for_again(run_ingest: Ingest) -> None:
    end = run_ingest(b"", upload_key=keys.upload("of-last-month"))
    assert end.outcome is Outcome.FAILED
    assert "upload the file again" in (end.error or "")


@pytest.mark.parametrize(
    ("wish", "outcome"), [("cancel", Outcome.CANCELED), ("pause", Outcome.PAUSED)]
)
def test_a_wish_ends_the_job_and_nothing_is_published(
    wish: str, outcome: Outcome, run_ingest: Ingest, object_store: ObjectStore
) -> None:
    end = run_ingest(zip_of({"a.png": png(1)}), wish=wish)

    assert end.outcome is outcome
    assert datasets.list_datasets(object_store) == []


def test_many_shards_are_loaded_in_order(
    run_ingest: Ingest, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.version, "SHARD_IMAGES", 7)
    run_ingest(zip_of({f"{number:02}.png": png(number) for number in range(20)}))

    manifest = datasets.manifest(object_store, "set")
    assert [shard.num_images for shard in manifest.shards] == [7, 7, 6]
    images = load(object_store, manifest).images.permute(0, 2, 3, 1).numpy()
    assert (images == np.stack([picture(number) for number in range(20)])).all()
