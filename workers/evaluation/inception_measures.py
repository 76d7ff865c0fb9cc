"""The standard figures of a set of pictures, computed as torch-fidelity computes them by default
from the same features, random choices included."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from workers.evaluation.distances import frechet_distance, kernel_distance
from workers.evaluation.inception import InceptionRead

SEED = 2020
NUM_SUBSETS, SUBSET_SIZE = 100, 1000
NUM_SPLITS = 10


def inception_measures(pictures: InceptionRead, reference: Tensor) -> dict[str, float]:
    """The measures of `shared.schemas.scores` in Inception's features; `reference` are those of the
    reference pictures, float [m, 2048]."""
    return {
        "inception_frechet_distance": frechet_distance(reference, pictures.features),
        "inception_kernel_distance": subset_kernel_distance(pictures.features, reference),
        "inception_score": inception_score(pictures.logits),
    }


def subset_kernel_distance(pictures: Tensor, reference: Tensor) -> float:
    """The mean of `kernel_distance` over 100 choices of 1,000 from each set (Binkowski 2018); of as
    many as the smaller set has, where it has fewer."""
    size = min(SUBSET_SIZE, len(pictures), len(reference))
    random = np.random.RandomState(SEED)
    distances = []
    for _ in range(NUM_SUBSETS):
        rows = [
            torch.from_numpy(random.choice(len(of), size, replace=False))
            for of in (pictures, reference)
        ]
        distances.append(kernel_distance(reference[rows[1]], pictures[rows[0]]))
    return float(np.mean(distances))


def inception_score(logits: Tensor) -> float:
    """How sure the classes of pictures are, and how even over all of them: 1 to 1008 (Salimans
    2016), the mean over 10 parts. logits float [n, 1008]."""
    order = np.random.RandomState(SEED).permutation(len(logits))
    shuffled = logits[torch.from_numpy(order)].double()
    num_splits = min(NUM_SPLITS, len(logits))
    ends = [i * len(logits) // num_splits for i in range(num_splits + 1)]
    scores = []
    for start, end in itertools.pairwise(ends):
        log_p = shuffled[start:end].log_softmax(1)
        p = log_p.exp()
        scores.append((p * (log_p - p.mean(0).log())).sum(1).mean().exp().item())
    return float(np.mean(scores))
