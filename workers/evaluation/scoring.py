"""Scores of a set of pictures, each between those of real training pictures and of noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from shared.philox import philox
from shared.schemas.scores import Score
from workers.evaluation.inception import READ_AT_ONCE, Inception
from workers.evaluation.inception_measures import inception_measures
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
    rows = _rows(seen, n, seed)
    real = Read(training.features[rows], training.votes[rows])
    noise = Read.of(yardstick, _noise(pictures, seed))
    asked = {
        "value": (Read.of(yardstick, pictures), labels),
        "floor": (real, None if seen.labels is None else seen.labels[rows]),
        "ceiling": (noise, torch.arange(n) % known if known else None),
    }
    return _scores(
        {
            which: measures(read, given, reference=references, training=training, num_classes=known)
            for which, (read, given) in asked.items()
        }
    )


def inception_scores_of(
    pictures: Tensor,
    *,
    seen: TrainingData,
    reference: TrainingData,
    inception: Inception,
    seed: int,
    on_batch: Callable[[], None],
) -> dict[str, Score]:
    """The same in Inception's features. `on_batch` is called before each of `num_batches`, and may
    raise to stop."""
    references = inception.read(reference.images, on_batch).features
    asked = {
        "value": pictures,
        "floor": seen.images[_rows(seen, len(pictures), seed)],
        "ceiling": _noise(pictures, seed),
    }
    return _scores(
        {
            which: inception_measures(inception.read(images, on_batch), references)
            for which, images in asked.items()
        }
    )


def num_batches(n: int, *, seen: TrainingData, reference: TrainingData) -> int:
    """In how many batches `inception_scores_of` reads all sets to score n pictures."""
    sizes = (len(reference.images), n, min(n, len(seen.images)), n)
    return sum(math.ceil(size / READ_AT_ONCE) for size in sizes)


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


def _scores(found: Mapping[str, Mapping[str, float]]) -> dict[str, Score]:
    """From the measures of each of a score's three sets to the three of each score."""
    return {
        name: Score(**{which: of_set[name] for which, of_set in found.items()})
        for name in found["value"]
    }


def _rows(seen: TrainingData, n: int, seed: int) -> Tensor:
    """n training pictures, or all: int64 [n]."""
    num_seen = len(seen.images)
    return torch.from_numpy(Sampler(num_seen, seed).indices(0, min(n, num_seen)))


def _noise(like: Tensor, seed: int) -> Tensor:
    drawn = philox((seed, Purpose.NOISE_IMAGES), (0, 0))
    return torch.from_numpy(drawn.integers(0, 256, tuple(like.shape), np.uint8))
