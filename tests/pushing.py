"""Datasets in the store, without an upload and an ingest."""

from __future__ import annotations

import hashlib

import torch

from shared.clock import now
from shared.schemas.datasets import DatasetManifest, Shard
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore
from workers.training import shards
from workers.training.data import TrainingData


def push(
    store: ObjectStore, name: str, class_names: list[str], pictures: TrainingData
) -> DatasetManifest:
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
        num_classes=len(class_names), class_names=class_names,
        has_captions=pictures.texts is not None,
        shards=[Shard(key=key, bytes=len(data), sha256=digest, num_images=n)],
        created_at=now(),
    )  # fmt: skip
    datasets.publish(store, manifest)
    return manifest
