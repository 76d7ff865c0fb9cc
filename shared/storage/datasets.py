"""Datasets in the store: immutable versions, and a pointer to the newest of each name.

A manifest is written after the shards that it names; the pointer after the manifest. What is in a
shard is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pydantic import BaseModel

from shared.errors import CorruptObject, NotFound, PreconditionFailed
from shared.schemas.datasets import DatasetManifest, Shard
from shared.storage import documents, keys
from shared.storage.objects import ObjectStore


class Latest(BaseModel):
    """`latest.json`: which version a dataset's bare name means."""

    version: str


def publish(store: ObjectStore, manifest: DatasetManifest) -> None:
    """Make a version exist, and make it the newest. Its shards must be in the store.

    A version that exists already keeps its manifest: the version is the digest of the content.

    Raises CorruptObject: a shard is missing or has another size than the manifest says.
    """
    for shard in manifest.shards:
        _check_size(store, shard)
    key = keys.dataset_manifest(manifest.name, manifest.version)
    with suppress(PreconditionFailed):
        store.put_if_absent(key, documents.dump(manifest))
    latest = documents.dump(Latest(version=manifest.version))
    store.update(keys.dataset_latest(manifest.name), lambda _: latest)


def manifest(store: ObjectStore, name: str, version: str | None = None) -> DatasetManifest:
    """The manifest of a version, or of the newest. Raises NotFound."""
    version = version or latest(store, name)
    try:
        return documents.read(store, DatasetManifest, keys.dataset_manifest(name, version))
    except NotFound as error:
        raise NotFound(f"there is no version {version} of dataset {name}") from error


def latest(store: ObjectStore, name: str) -> str:
    """The version that a bare name means now. Raises NotFound."""
    try:
        return documents.read(store, Latest, keys.dataset_latest(name)).version
    except NotFound as error:
        raise NotFound(f"there is no dataset {name}") from error


def list_datasets(store: ObjectStore) -> list[DatasetManifest]:
    """The newest manifest of every dataset, by name."""
    return sorted(_newest(store), key=lambda manifest: manifest.name)


def delete(store: ObjectStore, name: str) -> None:
    """Delete every version: the pointer first, then manifests, then shards. Raises NotFound.

    A job that reads the dataset fails; whoever calls this has made sure that none does.
    """
    found = [info.key for info in store.list(keys.dataset_prefix(name))]
    if not found:
        raise NotFound(f"there is no dataset {name}")

    def turn(key: str) -> int:
        if key == keys.dataset_latest(name):
            return 0
        return 1 if key.endswith("/manifest.json") else 2

    for key in sorted(found, key=turn):
        store.delete(key)


def read_shard(store: ObjectStore, shard: Shard) -> bytes:
    """The shard's Parquet file. Raises CorruptObject when size or digest differ; NotFound."""
    return store.get_verified(shard.key, num_bytes=shard.bytes, sha256=shard.sha256)


def _newest(store: ObjectStore) -> Iterator[DatasetManifest]:
    for name in store.folders(keys.DATASETS):
        try:
            yield manifest(store, name)
        except NotFound:  # being written or deleted: without a pointer it does not exist
            continue


def _check_size(store: ObjectStore, shard: Shard) -> None:
    try:
        present = store.stat(shard.key).bytes
    except NotFound as error:
        raise CorruptObject(f"shard {shard.key} was not written") from error
    if present != shard.bytes:
        raise CorruptObject(f"shard {shard.key} has {present} bytes, not {shard.bytes}")
