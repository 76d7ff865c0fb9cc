"""Which pictures of a dataset a job looks at that holds a model against them."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.errors import InvalidInput
from shared.schemas.datasets import DatasetManifest
from shared.schemas.models import ModelCard
from shared.storage.objects import ObjectStore
from workers.training import data
from workers.training.data import Sampler, TrainingData


def load_fitting(
    store: ObjectStore, manifest: DatasetManifest, *, like: ModelCard | DatasetManifest
) -> TrainingData:
    """All pictures of a dataset, to be held against a model or what it was trained on; the classes
    only if they are the same.

    Raises InvalidInput: the pictures have another size or number of channels.
    """
    if (manifest.size, manifest.channels) != (like.size, like.channels):
        raise InvalidInput(
            f"dataset {manifest.name} is {_form(manifest)}, the model's pictures are "
            f"{_form(like)}: push the dataset with --size {like.size} --channels {like.channels}"
        )
    pictures = data.load(store, manifest)
    if manifest.class_names != like.class_names:
        return TrainingData(pictures.images, None, None)
    return pictures


def order(pictures: TrainingData, seed: int) -> Tensor:
    """All rows, int64 [N], in the order that `seed` draws."""
    n = len(pictures.images)
    return torch.from_numpy(Sampler(n, seed).indices(0, n))


def taken(pictures: TrainingData, rows: Tensor) -> TrainingData:
    """Some of the pictures, without their captions."""
    labels = None if pictures.labels is None else pictures.labels[rows]
    return TrainingData(pictures.images[rows], labels, None)


def _form(of: ModelCard | DatasetManifest) -> str:
    return f"{of.size} x {of.size} x {of.channels}"
