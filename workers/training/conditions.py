"""Under which conditions pictures are made and judged: none, classes, or captions.

A label (int64) stands for one: it is what travels with a picture, into the repository too. What the
networks are given is made of labels here.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from shared.schemas.recipes import GanConfig
from workers.training.captions import Captions
from workers.training.counters import Counters, Purpose
from workers.training.data import TrainingData


class Conditions(Protocol):
    """All methods are for this rank's share of a step's pictures; labels int64 [n]."""

    num_labels: int
    """Labels go from 0 to this, exclusive."""

    def drawn(self, step: int, n: int) -> Tensor:
        """Labels for n new pictures over all ranks."""
        ...

    def of_reals(self, numbers: Tensor, step: int, n: int) -> Tensor:
        """Labels of real pictures by their numbers in the dataset; n over all ranks."""
        ...

    def told(self, labels: Tensor) -> Tensor | None:
        """What D is told of them, and a finished G."""
        ...

    def told_in_training(self, labels: Tensor, step: int, n: int) -> Tensor | None:
        """What a G in training is told of n over all ranks."""
        ...

    def mismatched(self, labels: Tensor, step: int, n: int) -> Tensor | None:
        """What D is told of real pictures that it does not hold for; None: it is not trained so."""
        ...


def conditions(
    config: GanConfig, data: TrainingData, counters: Counters, device: torch.device
) -> Conditions:
    """The conditions of a recipe. With text the data's captions must have been read."""
    if config.generator.text_dim:
        assert data.captions is not None, "a recipe with text needs captions as vectors"
        return Texts(config, data.captions, counters, device)
    return Classes(config, data.labels, counters, device)


class Classes:
    """The dataset's classes; without any every picture has label 0 and nobody is told."""

    def __init__(
        self, config: GanConfig, labels: Tensor | None, counters: Counters, device: torch.device
    ) -> None:
        self._num_classes = config.generator.num_classes
        self.num_labels = max(self._num_classes, 1)
        self._labels = labels.to(device) if labels is not None and self._num_classes else None
        self._counters = counters

    def drawn(self, step: int, n: int) -> Tensor:
        return self._counters.integers(Purpose.CLASSES, step, self.num_labels, n)

    def of_reals(self, numbers: Tensor, step: int, n: int) -> Tensor:
        del step, n
        return torch.zeros_like(numbers) if self._labels is None else self._labels[numbers]

    def told(self, labels: Tensor) -> Tensor | None:
        return labels if self._num_classes else None

    def told_in_training(self, labels: Tensor, step: int, n: int) -> Tensor | None:
        del step, n
        return self.told(labels)

    def mismatched(self, labels: Tensor, step: int, n: int) -> Tensor | None:
        del labels, step, n
        return None


class Texts:
    """The dataset's captions; a label is the number of a sentence."""

    def __init__(
        self, config: GanConfig, captions: Captions, counters: Counters, device: torch.device
    ) -> None:
        self._vectors = captions.vectors.to(device)
        self._rows = captions.rows.to(device)
        self._starts = captions.starts.to(device)
        self._noise = config.text_noise
        self._counters = counters
        self.num_labels = len(captions.sentences)

    def drawn(self, step: int, n: int) -> Tensor:
        """As often as pictures have them."""
        return self._rows[self._counters.integers(Purpose.CLASSES, step, len(self._rows), n)]

    def of_reals(self, numbers: Tensor, step: int, n: int) -> Tensor:
        """One of a picture's captions, each as likely."""
        starts = self._starts[numbers]
        counts = self._starts[numbers + 1] - starts
        # A product of floats may be rounded up to the count.
        turn = self._counters.uniform(Purpose.CAPTIONS, step, n) * counts
        return self._rows[starts + turn.long().clamp(max=counts - 1)]

    def told(self, labels: Tensor) -> Tensor:
        return self._vectors[labels]

    def told_in_training(self, labels: Tensor, step: int, n: int) -> Tensor:
        noise = self._counters.normal(Purpose.TEXT_NOISE, step, n, self._vectors.shape[1])
        return self.told(labels) + self._noise * noise

    def mismatched(self, labels: Tensor, step: int, n: int) -> Tensor:
        """Another picture's caption, as often as pictures have it; the next one, where it says the
        same."""
        drawn = self._rows[self._counters.integers(Purpose.MISMATCHES, step, len(self._rows), n)]
        return self.told(torch.where(drawn == labels, (drawn + 1) % self.num_labels, drawn))
