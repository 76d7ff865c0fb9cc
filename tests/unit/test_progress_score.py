"""The score of a running training."""

from __future__ import annotations

import pytest
import torch

from shared.schemas.networks import GeneratorConfig
from tests.forgers import forger
from tests.training import dirty_squares
from workers.evaluation.distances import Moments, frechet_of
from workers.evaluation.progress import ProgressScore
from workers.evaluation.yardstick import build_yardstick
from workers.training.ranks import Ranks


def test_moments_of_parts_are_the_moments_of_the_whole() -> None:
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).double() + 5
    parts = x.split(100)
    others = [
        torch.cat([p.new_full((1,), len(p)), p.sum(0), (p.T @ p).flatten()]) for p in parts[1:]
    ]
    whole, found = Moments.of(x), Moments.of(parts[0], lambda sums: sums + sum(others))
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.covariance, whole.covariance)
    torch.testing.assert_close(whole.covariance, torch.cov(x.T))
    assert frechet_of(whole, found) == pytest.approx(0, abs=1e-9)


def test_the_same_generator_scores_the_same_and_another_does_not() -> None:
    data = dirty_squares(256, seed=0)
    torch.manual_seed(0)
    yardstick = build_yardstick(size=8, channels=1, num_classes=4).eval()
    score = ProgressScore(data, yardstick, n=100, seed=3, ranks=Ranks())
    config = GeneratorConfig(size=8, width=8, z_dim=8, num_classes=4)
    one, other = (score(forger(config, seed=seed)) for seed in (0, 1))
    assert one == score(forger(config, seed=0))
    assert one != other
    assert min(one, other) > 0
