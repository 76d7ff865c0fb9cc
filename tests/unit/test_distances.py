"""Distances of sets of features: known cases, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    manifolds,
    nearest_distances,
)

D = 8


def normal(n: int, *, seed: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * std + mean


def test_a_set_has_no_distance_to_itself() -> None:
    x = normal(500, seed=0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert kernel_distance(x, x) <= 0
    # A ball reaches to the 5th neighbour, so each picture lies in 4 others' and its own.
    same = manifolds(x, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1)


@given(mean=st.floats(-3, 3), std=st.floats(0.2, 3))
@settings(deadline=None)
def test_frechet_distance_of_gaussians_is_their_formula(mean: float, std: float) -> None:
    # The same draws, moved and stretched: means and covariances are known without an error.
    x = normal(400, seed=1)
    y = x * std + mean
    centre, cov = x.double().mean(0), torch.cov(x.double().T)
    moved = (centre * std + mean - centre).square().sum()
    expected = moved + cov.trace() * (1 - std) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


def test_frechet_distance_falls_as_the_sets_grow() -> None:
    far, near = (frechet_distance(normal(n, seed=2), normal(n, seed=3)) for n in (100, 10_000))
    assert 0 < near < far / 10


def test_kernel_distance_is_the_mean_over_pairs() -> None:
    x, y = normal(30, seed=4).double(), normal(40, seed=5, mean=0.5).double()

    def mean(a: Tensor, b: Tensor, *, same: bool) -> float:
        kernel = (a @ b.T / D + 1) ** 3
        pairs = ~torch.eye(len(a), dtype=torch.bool) if same else torch.ones_like(kernel).bool()
        return kernel[pairs].mean().item()

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(normal(2000, seed=6), normal(2000, seed=7)) == pytest.approx(0, abs=0.05)


def test_manifolds_count_balls() -> None:
    real, fake = normal(60, seed=8), normal(50, seed=9, mean=0.7)
    apart = torch.cdist(real, fake)
    radius_r = torch.cdist(real, real).sort(1).values[:, 3]
    radius_f = torch.cdist(fake, fake).sort(1).values[:, 3]
    inside = apart < radius_r[:, None]
    found = manifolds(real, fake, k=3)
    assert found.precision == pytest.approx(inside.any(0).float().mean().item())
    assert found.density == pytest.approx(inside.sum().item() / 3 / 50)
    assert found.coverage == pytest.approx(inside.any(1).float().mean().item())
    assert found.recall == pytest.approx((apart < radius_f).any(1).float().mean().item())


def test_a_lost_mode_shows_in_coverage_and_copies_show_in_recall() -> None:
    modes = [normal(300, seed=seed, mean=10.0 * seed) for seed in range(4)]
    again = [normal(300, seed=10 + seed, mean=10.0 * seed) for seed in range(4)]
    assert manifolds(torch.cat(modes), torch.cat(again)).coverage > 0.9
    lost = manifolds(torch.cat(modes), torch.cat(again[:2]))
    assert lost.coverage < 0.55
    assert lost.precision > 0.9  # which it hides
    few = again[0][:20].repeat(15, 1)
    assert manifolds(modes[0], few).recall == 0


@given(order=st.permutations(range(20)))
@settings(deadline=None, max_examples=20)
def test_the_order_of_pictures_does_not_matter(order: list[int]) -> None:
    real, fake = normal(25, seed=11), normal(20, seed=12)
    for measure in (frechet_distance, kernel_distance):
        assert math.isclose(measure(real, fake), measure(real, fake[order]), rel_tol=1e-9)
    here, there = vars(manifolds(real, fake)), vars(manifolds(real, fake[order]))
    assert here == pytest.approx(there)


def test_the_nearest_is_found_in_any_part() -> None:
    among = normal(3000, seed=13)
    of = among[[0, 1500, 2999]] + 0.001
    assert nearest_distances(of, among).max() < 0.01
    assert nearest_distances(of + 50, among).min() > 40
