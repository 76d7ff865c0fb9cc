"""Datasets in a real store: a version exists when its manifest does."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from shared.clock import now
from shared.errors import CorruptObject, NotFound
from shared.schemas.datasets import DatasetManifest, Shard
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore


@pytest.fixture
def name() -> str:
    return f"set-{uuid.uuid4()}"


def written(store: ObjectStore, name: str, version: str) -> DatasetManifest:
    """A version whose shards are in the store, not yet published."""
    shards = []
    for index in range(2):
        key, data = keys.dataset_shard(name, version, index), f"{version} {index}".encode()
        store.put(key, data)
        sha256 = hashlib.sha256(data).hexdigest()
        shards.append(Shard(key=key, bytes=len(data), sha256=sha256, num_images=1))
    return DatasetManifest(
        name=name,
        version=version,
        size=8,
        channels=1,
        num_images=2,
        num_classes=0,
        shards=shards,
        created_at=now(),
    )


def test_the_newest_version_is_what_a_name_means(object_store: ObjectStore, name: str) -> None:
    one, two = (written(object_store, name, version) for version in ("one", "two"))
    with pytest.raises(NotFound, match=name):
        datasets.manifest(object_store, name)
    datasets.publish(object_store, one)
    datasets.publish(object_store, two)
    assert datasets.manifest(object_store, name) == two
    assert datasets.manifest(object_store, name, "one") == one
    with pytest.raises(NotFound, match="version three"):
        datasets.manifest(object_store, name, "three")
    datasets.publish(object_store, one.model_copy(update={"created_at": now()}))
    assert datasets.manifest(object_store, name) == one, "published again, and not written again"
    listed = datasets.list_datasets(object_store)
    assert [found for found in listed if found.name == name] == [one]
    assert listed == sorted(listed, key=lambda found: found.name)


def test_a_version_without_its_shards_is_not_published(
    object_store: ObjectStore, name: str
) -> None:
    manifest = written(object_store, name, "one")
    object_store.put(manifest.shards[1].key, b"torn")
    with pytest.raises(CorruptObject, match="part-00001"):
        datasets.publish(object_store, manifest)
    object_store.delete(manifest.shards[0].key)
    with pytest.raises(CorruptObject, match="part-00000"):
        datasets.publish(object_store, manifest)
    with pytest.raises(NotFound):
        datasets.manifest(object_store, name)


def test_a_corrupt_shard_is_not_read(object_store: ObjectStore, name: str) -> None:
    shard = written(object_store, name, "one").shards[0]
    assert datasets.read_shard(object_store, shard) == b"one 0"
    object_store.put(shard.key, b"one 1")
    with pytest.raises(CorruptObject):
        datasets.read_shard(object_store, shard)


def test_a_deleted_dataset_is_gone(object_store: ObjectStore, name: str) -> None:
    neighbour = name + "-2"
    for each in (name, neighbour):
        for version in ("one", "two"):
            datasets.publish(object_store, written(object_store, each, version))
    datasets.delete(object_store, name)
    assert list(object_store.list(keys.dataset_prefix(name))) == []
    names = [found.name for found in datasets.list_datasets(object_store)]
    assert name not in names
    assert neighbour in names
    with pytest.raises(NotFound):
        datasets.delete(object_store, name)
