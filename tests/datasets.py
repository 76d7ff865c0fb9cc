"""Small datasets in a store, as an ingest would leave them."""

from __future__ import annotations

import hashlib

import torch

from shared.clock import now
from shared.schemas.datasets import DatasetManifest, Shard
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from workers.training import shards
from workers.training.data import TrainingData

CLASS_NAMES = ["north-west", "north-east", "south-west", "south-east"]


def push(store: ObjectStore, name: str, pictures: TrainingData) -> DatasetManifest:
    """The pictures as a version of dataset `name`, as an ingest would leave it."""
    n, channels, size, _ = pictures.images.shape
    labels = pictures.labels
    data = shards.encode(
        shards.ShardData(
            images=pictures.images.permute(0, 2, 3, 1).contiguous().numpy(),
            labels=torch.full((n,), -1).numpy() if labels is None else labels.numpy(),
            texts=pictures.texts or [None] * n,
        )
    )
    digest = hashlib.sha256(data).hexdigest()
    key = keys.dataset_shard(name, digest, 0)
    store.put(key, data)
    manifest = DatasetManifest(
        name=name, version=digest, size=size, channels=channels, num_images=n,
        num_classes=0 if labels is None else len(CLASS_NAMES),
        class_names=[] if labels is None else CLASS_NAMES,
        has_captions=pictures.texts is not None,
        shards=[Shard(key=key, bytes=len(data), sha256=digest, num_images=n)],
        created_at=now(),
    )  # fmt: skip
    datasets.publish(store, manifest)
    return manifest
