"""The training data: a dataset version in memory, and the order in which its images are seen.

Nothing is resized or decoded here: a shard holds raw pixels of the size that the ingest gave them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import CorruptObject
from shared.philox import philox
from shared.schemas.datasets import DatasetManifest
from shared.storage import datasets
from shared.storage.objects import ObjectStore
from workers.training import shards
from workers.training.captions import Captions
from workers.training.counters import Purpose


@dataclass(frozen=True, slots=True)
class TrainingData:
    """`images` uint8 [N, C, H, W], `labels` int64 [N] (None: the dataset has no classes),
    `texts` [N] (None within it: an image without a caption; None: no image has one), `captions`:
    the texts as vectors, where a recipe needs them."""

    images: Tensor
    labels: Tensor | None
    texts: list[str | None] | None
    captions: Captions | None = None


def load(store: ObjectStore, manifest: DatasetManifest) -> TrainingData:
    """The whole version; needs its pixels' size in memory and one shard's beside it.

    Raises:
        CorruptObject: a shard is not what the manifest says.
        NotFound: a shard is gone.
    """
    n, size, channels = manifest.num_images, manifest.size, manifest.channels
    images = torch.empty((n, channels, size, size), dtype=torch.uint8)
    labels = torch.empty(n, dtype=torch.int64)
    texts: list[str | None] = []
    for entry in manifest.shards:
        data = datasets.read_shard(store, entry)
        shard = shards.decode(data, size=size, channels=channels)
        here = slice(len(texts), len(texts) + len(shard.texts))
        if len(shard.texts) != entry.num_images or here.stop > n:
            raise CorruptObject(f"{entry.key} holds {len(shard.texts)} images: not as its manifest")
        images[here] = torch.from_numpy(shard.images.copy()).permute(0, 3, 1, 2)
        labels[here] = torch.from_numpy(shard.labels.astype(np.int64))
        texts += shard.texts
    if len(texts) != n:
        raise CorruptObject(f"the shards of {manifest.name} hold {len(texts)} images, not {n}")
    return TrainingData(
        images=images,
        labels=labels if manifest.num_classes else None,
        texts=texts if manifest.has_captions else None,
    )


class Sampler:
    """The order of the images: in each epoch a permutation drawn from (seed, epoch) alone.

    The position after `step` steps of `batch` images is step * batch, so nothing else decides what
    a step sees: no image is skipped or repeated within an epoch by a resume or by another number of
    workers. The last batch of an epoch goes on into the next.
    """

    def __init__(self, num_images: int, seed: int, stream: int = 0) -> None:
        """Orders of different `stream` have nothing to do with each other."""
        self._num_images = num_images
        self._seed = seed
        self._stream = stream
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, step: int, batch: int) -> NDArray[np.int64]:
        """The images of one step: int64 [batch]."""
        return self.between(step * batch, (step + 1) * batch)

    def between(self, position: int, end: int) -> NDArray[np.int64]:
        """The images from one position to another: int64 [end - position]."""
        parts = [np.empty(0, np.int64)]
        while position < end:
            epoch, start = divmod(position, self._num_images)
            stop = min(self._num_images, start + end - position)
            parts.append(self._permutation(epoch)[start:stop])
            position += stop - start
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            # Sorting raw Philox words, not Generator.permutation: numpy promises that the words
            # stay the same in later releases, so a run can be resumed under one.
            stream = philox((self._seed, Purpose.DATA_ORDER), (epoch, self._stream)).bit_generator
            self._order = np.argsort(stream.random_raw(self._num_images), kind="stable")
            self._epoch = epoch
        return self._order


class BalancedSampler:
    """The order of the images when the classes take turns, so that each is seen equally often.

    A class's own images follow each other as in `Sampler`: a rare class begins its next epoch
    sooner. The position alone decides here, too.
    """

    def __init__(self, labels: Tensor, seed: int) -> None:
        """labels int64 [N]; a class without images has no turn."""
        self._members = [(labels == c).nonzero()[:, 0].numpy() for c in labels.unique()]
        self._samplers = [
            Sampler(len(members), seed, stream=turn + 1)
            for turn, members in enumerate(self._members)
        ]

    def indices(self, step: int, batch: int) -> NDArray[np.int64]:
        """The images of one step: int64 [batch]."""
        start, end = step * batch, (step + 1) * batch
        turns = len(self._members)
        images = np.empty(batch, np.int64)
        for turn, (members, sampler) in enumerate(zip(self._members, self._samplers, strict=True)):
            # How often this class had its turn before `start`, and before `end`.
            first, last = (-((turn - position) // turns) for position in (start, end))
            images[first * turns + turn - start :: turns] = members[sampler.between(first, last)]
        return images
