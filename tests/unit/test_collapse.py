"""Signs of collapse on sets whose signs are known, and what the watch makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shared.schemas.recipes import CollapseConfig
from tests.training import dirty_squares
from workers.training.collapse import CollapseSigns, CollapseWatch
from workers.training.ranks import Ranks

REALS = dirty_squares(512, seed=0)
NUM_CLASSES = 4


def to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def signs_of(images: Tensor, c: Tensor | None, gradient: Tensor | None = None) -> dict[str, float]:
    """Of pictures shown in sets of 64."""
    assert REALS.labels is not None
    signs = CollapseSigns(REALS.images, REALS.labels, 0 if c is None else NUM_CLASSES, Ranks())
    if gradient is None:
        gradient = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for start in range(0, len(images), 64):
        part = slice(start, start + 64)
        signs.see(images[part], None if c is None else c[part], gradient[part], torch.tensor(0.5))
    return signs.take()


def test_pictures_as_the_reals_have_no_sign() -> None:
    others = dirty_squares(512, seed=1)
    for c in (others.labels, None):
        signs = signs_of(to_float(others.images), c)
        assert signs["variance_within"] == pytest.approx(1, abs=0.1)
        assert signs["mean_distance"] < 0.02
        assert abs(signs["gradient_similarity"]) < 0.05
        assert signs["sureness_d"] == 0.5


def test_one_picture_a_class_has_no_variance_although_the_set_has() -> None:
    assert REALS.labels is not None
    means = torch.stack([to_float(REALS.images[REALS.labels == k]).mean(0) for k in range(4)])
    signs = signs_of(means[REALS.labels], REALS.labels)
    assert signs["variance_within"] == pytest.approx(0, abs=1e-4)
    assert signs["mean_distance"] < 0.01


def test_a_lost_class_is_far_from_its_mean() -> None:
    assert REALS.labels is not None
    images = to_float(REALS.images).clone()
    images[REALS.labels == 0] = images[REALS.labels == 3]
    signs = signs_of(images, REALS.labels)
    assert signs["worst_mean_distance"] > 0.5
    assert signs["mean_distance"] == pytest.approx(signs["worst_mean_distance"] / 4, rel=0.05)
    assert "worst_mean_distance" not in signs_of(images, None)  # it would be the mean's again


def test_equal_gradients_are_similar() -> None:
    images = to_float(REALS.images)
    one = torch.randn(1, *images.shape[1:], generator=torch.Generator().manual_seed(1))
    lengths = torch.linspace(0.1, 3, len(images))[:, None, None, None]
    signs = signs_of(images, None, one * lengths)
    assert signs["gradient_similarity"] == pytest.approx(1, abs=1e-4)
    assert signs_of(images, None, 0 * one * lengths)["gradient_similarity"] <= 0  # and not NaN


def test_signs_start_anew_after_each_look() -> None:
    signs = CollapseSigns(REALS.images, None, 0, Ranks())
    images = to_float(REALS.images[:64])
    signs.see(images, None, images, torch.tensor(0.9))
    signs.take()
    signs.see(images, None, images, torch.tensor(0.1))
    assert signs.take()["sureness_d"] == pytest.approx(0.1)


WELL = {"variance_within": 0.9, "gradient_similarity": 0.2, "mean_distance": 0.02}
ILL = {"variance_within": 0.01, "gradient_similarity": 0.95, "mean_distance": 0.02}
DIRTY = {"variance_within": 0.01, "gradient_similarity": 0.2, "mean_distance": 0.02}
FADING = {"variance_within": 0.15, "gradient_similarity": 0.95}
PALE = {"variance_within": 0.25, "gradient_similarity": 0.95}
LOST = {"mean_distance": 0.3, "worst_mean_distance": 0.9}
BROKEN = WELL | {"sureness_d": math.nan}


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([WELL] * 6, []),
        ([WELL, ILL, WELL, ILL, WELL], []),
        ([WELL, ILL, ILL, ILL, ILL], [2]),  # told once
        ([WELL, ILL, ILL, WELL, ILL, ILL], [2, 5]),
        ([WELL, DIRTY, DIRTY, DIRTY], []),  # one sign is none
        ([WELL, FADING, FADING], [2]),
        ([WELL, PALE, PALE, PALE], []),
        ([WELL, BROKEN, BROKEN], [1]),  # at once
        ([{"mean_distance": 0.3, "worst_mean_distance": 0.9}] * 4, []),  # it never was better
        ([WELL | {"worst_mean_distance": 0.1}, LOST, LOST], [2]),
    ],
)
def test_what_is_told_when(history: list[dict[str, float]], told: list[int]) -> None:
    watch = CollapseWatch(CollapseConfig(grace_kimg=0), kimg=100)
    found = [i for i, signs in enumerate(history) if watch.judge(signs, 50.0 + i, last=False)]
    assert found == told


def test_a_beginning_is_not_judged_and_the_end_is_judged_at_once() -> None:
    watch = CollapseWatch(CollapseConfig(grace_kimg=20), kimg=1000)
    assert not watch.judge(ILL, 30, last=False)
    assert not watch.judge(ILL, 40, last=False)
    assert watch.healthy  # 5 % of the run are 50
    assert not watch.judge(ILL, 60, last=False)
    assert not watch.healthy
    fresh = CollapseWatch(CollapseConfig(grace_kimg=20), kimg=100)
    assert fresh.judge(ILL, 100, last=True) == ["variance_within", "gradient_similarity"]


def test_what_is_remembered_is_of_healthy_checks() -> None:
    watch = CollapseWatch(CollapseConfig(grace_kimg=0), kimg=100)
    watch.judge(WELL | {"mean_distance": 0.05}, 30, last=False)
    watch.judge(ILL | {"mean_distance": 0.001}, 34, last=False)
    assert watch.lowest["mean_distance"] == 0.05
    again = CollapseWatch(CollapseConfig(grace_kimg=0), 100, watch.lowest)
    assert again.lowest == watch.lowest
