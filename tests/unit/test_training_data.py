"""The order of the images depends on the seed and the position, and on nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.training.data import Sampler

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
