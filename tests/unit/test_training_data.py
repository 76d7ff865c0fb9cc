"""The order of the images depends on the seed and the position, and on nothing else."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.training.data import BalancedSampler, Sampler

counts = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


@given(counts, seeds, st.integers(1, 60))
def test_each_epoch_shows_every_image_once(num_images: int, seed: int, batch: int) -> None:
    sampler = Sampler(num_images, seed)
    steps = 3 * num_images // batch + 1
    seen = np.concatenate([sampler.indices(step, batch) for step in range(steps)])

    for epoch in range(len(seen) // num_images):
        in_epoch = seen[epoch * num_images : (epoch + 1) * num_images]
        assert sorted(in_epoch) == list(range(num_images))


@given(counts, seeds, st.integers(1, 12), st.integers(1, 5), st.integers(0, 20))
def test_the_position_alone_decides(
    num_images: int, seed: int, batch: int, parts: int, step: int
) -> None:
    whole = Sampler(num_images, seed).indices(step, batch * parts)
    fresh = Sampler(num_images, seed)
    backward = [fresh.indices(step * parts + part, batch) for part in reversed(range(parts))]

    assert whole.dtype == np.int64
    assert (np.concatenate(backward[::-1]) == whole).all()


def test_epochs_and_seeds_differ() -> None:
    first, other = Sampler(1000, seed=1), Sampler(1000, seed=2)

    assert (first.indices(0, 1000) != first.indices(1, 1000)).any()
    assert (first.indices(0, 1000) != other.indices(0, 1000)).any()


def test_the_order_never_changes() -> None:
    """A run that is resumed under a later release must go on in the same order."""
    order = Sampler(8, seed=7).indices(0, 16).tolist()
    assert order == [1, 2, 3, 7, 4, 0, 6, 5, 1, 4, 6, 5, 3, 2, 7, 0]


def test_classes_take_turns_however_rare_they_are() -> None:
    labels = torch.tensor([0] * 20 + [2] * 3 + [5] * 7)
    sampler = BalancedSampler(labels, seed=1)
    seen = np.concatenate([sampler.indices(step, 10) for step in range(12)])
    assert labels[seen].bincount().tolist() == [40, 0, 40, 0, 0, 40]
    # Each image of a class has its turn before any has its next.
    rare = seen[labels[seen] == 2]
    assert all(sorted(epoch) == [20, 21, 22] for epoch in rare[:39].reshape(-1, 3))
    assert np.array_equal(BalancedSampler(labels, seed=1).indices(7, 10), seen[70:80])
