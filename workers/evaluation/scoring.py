"""Scores of a set of pictures, each between those of real training pictures and of noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shared.philox import philox
from shared.schemas.scores import Score
from workers.evaluation.measures import Read, measures
from workers.evaluation.yardstick import Yardstick, accuracy
from workers.training.counters import Purpose
from workers.training.data import Sampler, TrainingData


def scores_of(
    pictures: Tensor,
    labels: Tensor | None,
    *,
    seen: TrainingData,
    reference: TrainingData,
    yardstick: Yardstick,
    seed: int,
) -> dict[str, Score]:
    """Scores by name (shared.schemas.scores) of uint8 pictures [n, C, H, W].

    `labels` int64 [n] are the classes that were asked for; `seen` is what the model was trained on,
    `reference` what it is held against.
    """
    n = len(pictures)
    known = yardstick.num_classes if seen.labels is not None else 0
    training = Read.of(yardstick, seen.images)
    references = Read.of(yardstick, reference.images)
    rows = torch.from_numpy(Sampler(len(seen.images), seed).indices(0, min(n, len(seen.images))))
    real = Read(training.features[rows], training.votes[rows])
    noise = Read.of(yardstick, _noise(pictures, seed))
    asked = {
        "value": (Read.of(yardstick, pictures), labels),
        "floor": (real, None if seen.labels is None else seen.labels[rows]),
        "ceiling": (noise, torch.arange(n) % known if known else None),
    }
    found = {
        name: measures(read, given, reference=references, training=training, num_classes=known)
        for name, (read, given) in asked.items()
    }
    return {
        name: Score(**{which: of_set[name] for which, of_set in found.items()})
        for name in found["value"]
    }


def classification_accuracy(
    learned: Yardstick, *, yardstick: Yardstick, reference: TrainingData
) -> Score:
    """How well a classifier does on the reference that has learned from a model's pictures alone
    (Ravuri 2019), between one that has learned from real pictures and chance."""
    return Score(
        value=accuracy(learned, reference),
        floor=accuracy(yardstick, reference),
        ceiling=1 / learned.num_classes,
    )


def _noise(like: Tensor, seed: int) -> Tensor:
    drawn = philox((seed, Purpose.NOISE_IMAGES), (0, 0))
    return torch.from_numpy(drawn.integers(0, 256, tuple(like.shape), np.uint8))
