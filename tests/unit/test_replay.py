"""The replay repository keeps what the lecture says: uniformly, and the same for any ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training import tiny
from workers.training.counters import Counters
from workers.training.ranks import Ranks
from workers.training.replay import Fakes, ReplayRepository, ages


def repository(**replay: int) -> ReplayRepository:
    ranks = Ranks()
    config = tiny("lecture", replay=replay, generator={"norm_group": 2, "size": 16})
    return ReplayRepository(config, 1, Counters(config.seed, ranks), ranks)


def new_images(n: int, round_: int) -> Fakes:
    """n fakes, each with its own number in its first two pixels."""
    images = torch.zeros(n, 1, 16, 16, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(n)
    images[:, 0, 0, 1] = round_ % 256
    return Fakes(images, torch.arange(n), torch.full((n,), round_), torch.full((n,), 0.5))


def test_it_starts_with_random_images() -> None:
    held = repository().held
    assert held.images.shape == (200, 1, 16, 16)
    assert (held.born == -1).all()
    pixels = held.images.float() / 255
    assert pixels.mean() == pytest.approx(0.5, abs=0.01)
    assert pixels.var() == pytest.approx(1 / 12, abs=0.01)


def test_each_round_keeps_100_and_takes_the_100_new() -> None:
    replay = repository()
    before = replay.held.images.clone()
    held = replay.add(new_images(100, 0), 0)
    assert (held.born == 0).sum() == 100
    kept = held.born == -1
    assert torch.equal(held.images[kept], before[kept])
    assert sorted(held.images[~kept, 0, 0, 0].tolist()) == list(range(100))
    assert sorted(held.labels[~kept].tolist()) == list(range(100))


def test_every_slot_is_kept_equally_often() -> None:
    """Chi-square over 2,000 rounds: 99 % of uniform choices lie below 249.4 (199 degrees)."""
    replay = repository()
    overwritten = np.zeros(200)
    for round_ in range(2000):
        overwritten += (replay.add(new_images(100, round_), round_).born == round_).numpy()
    # The variance of a count is n p q (199/200 corrected), not n p: draws are without replacement.
    chi_square = ((overwritten - 1000) ** 2 / (2000 * 0.25)).sum() * 199 / 200
    assert chi_square < 249.4


def test_ages_halve_with_each_round() -> None:
    replay = repository()
    total: dict[int, int] = {}
    for round_ in range(300):
        held = replay.add(new_images(100, round_), round_)
        if round_ >= 20:
            for age, count in ages(held.born, round_).items():
                total[age] = total.get(age, 0) + count
    mean = {age: count / 280 for age, count in total.items()}
    assert mean[0] == 100
    for age in range(1, 5):
        # Standard error of the mean count at age 1 is 0.3; at age 4 it is 0.15.
        assert mean[age] == pytest.approx(100 * 0.5**age, abs=2.0)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_a_whole_repository_can_be_shared_out_again(num_ranks: int) -> None:
    whole = repository().add(new_images(100, 0), 0)
    config = tiny("lecture")
    shares = []
    for rank in range(num_ranks):
        ranks = Ranks(rank, num_ranks)
        replay = ReplayRepository(config, 1, Counters(config.seed, ranks), ranks)
        replay.load_state(whole)
        shares.append(replay.held)
    for name, tensor in vars(whole).items():
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), tensor)


def test_another_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="repository of 200 for a capacity 50"):
        repository(capacity=50, num_new=20).load_state(repository().held)
