"""What is measured of a set of pictures against reference pictures, by a yardstick."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    manifolds,
    nearest_distances,
)
from workers.evaluation.yardstick import Yardstick

NUM_NEIGHBOURS = 5_000
"""Pictures of each set whose neighbours are looked for: the time grows with the square."""


@dataclass(frozen=True)
class Read:
    """What the yardstick sees in a set: features [n, d]; votes int64 [n]."""

    features: Tensor
    votes: Tensor

    @classmethod
    def of(cls, yardstick: Yardstick, images: Tensor) -> Read:
        """Read uint8 images [n, C, H, W]."""
        return cls(*yardstick.read(images))


def measures(
    pictures: Read, labels: Tensor | None, *, reference: Read, training: Read, num_classes: int
) -> dict[str, float]:
    """The measures of `shared.schemas.scores`, but for `classification_accuracy`.

    `labels` int64 [n] are the classes that the pictures should show, if any was asked for; the
    yardstick knows `num_classes` (0: the dataset has none).
    """
    near = manifolds(reference.features[:NUM_NEIGHBOURS], pictures.features[:NUM_NEIGHBOURS])
    fresh = nearest_distances(reference.features, training.features).median()
    nearest = nearest_distances(pictures.features, training.features).median()
    found: dict[str, float] = {
        "frechet_distance": frechet_distance(reference.features, pictures.features),
        "kernel_distance": kernel_distance(reference.features, pictures.features),
        "recall": near.recall,
        "coverage": near.coverage,
        "precision": near.precision,
        "density": near.density,
    }
    if fresh > 0:  # else the reference's own pictures are copies
        found["nearest_ratio"] = (nearest / fresh).item()
    if labels is not None:
        found["label_agreement"] = (pictures.votes == labels).float().mean().item()
    if num_classes:
        found["class_entropy"] = _entropy(pictures.votes, num_classes)
    return found


def _entropy(votes: Tensor, num_classes: int) -> float:
    """Of the votes' shares, over log(num_classes): 1 when all classes are equally frequent."""
    shares = torch.bincount(votes, minlength=num_classes).double() / len(votes)
    return -torch.xlogy(shares, shares).sum().item() / math.log(num_classes)
