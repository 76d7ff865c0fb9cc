"""The objectives' gradients are those of the papers, and of the lecture's remedy."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from shared.networks.layers import BatchNorm
from shared.schemas.recipes import CONTRAST_GROUP
from workers.training.objectives import OBJECTIVES
from workers.training.penalties import (
    contrast,
    gradient_penalty,
    interpolated,
    lecam,
    matching_penalty,
    matrices,
    one_centred_penalty,
    orthogonality,
)
from workers.training.ranks import Ranks
from workers.training.remedies import set_variance


def test_flipped_labels_shift_the_gradient_of_g_to_sigmoid_minus_one_minus_p() -> None:
    p = 0.1
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for logit in logits:
        fake = logit.repeat(10).requires_grad_()
        flipped = torch.zeros(10, dtype=torch.float64)
        flipped[: int(10 * p)] = 1
        OBJECTIVES["non_saturating"].loss_g(fake, fake, flipped).backward()
        assert fake.grad.sum() == pytest.approx((torch.sigmoid(logit) - (1 - p)).item(), abs=1e-12)


def test_no_flips_are_the_same_as_no_remedy() -> None:
    fake = torch.linspace(-3, 3, 7)
    loss_g = OBJECTIVES["non_saturating"].loss_g
    assert torch.allclose(loss_g(fake, fake, torch.zeros(7)), loss_g(fake, fake, None))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_d_wants_reals_high_and_fakes_low_and_g_wants_fakes_high(name: str) -> None:
    real = torch.zeros(4, requires_grad=True)
    fake = torch.zeros(4, requires_grad=True)
    OBJECTIVES[name].loss_d(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    shown = torch.zeros(4, requires_grad=True)
    OBJECTIVES[name].loss_g(real.detach(), shown, None).backward()
    assert (shown.grad < 0).all()


def test_the_relativistic_objective_sees_differences_only() -> None:
    real, fake = torch.randn(8), torch.randn(8)
    objective = OBJECTIVES["relativistic"]
    assert torch.allclose(objective.loss_d(real, fake), objective.loss_d(real + 5, fake + 5))
    assert torch.allclose(objective.loss_d(real, fake), F.softplus(fake - real).mean())


def test_gradient_penalty_of_a_linear_d_is_its_squared_weight() -> None:
    weight = torch.randn(1, 3, 3)
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    logits = (images * weight).sum((1, 2, 3))
    gamma = torch.tensor([1.0, 0.0, 2.0, 0.0, 2.0])
    expected = weight.square().sum() / 2
    assert torch.allclose(gradient_penalty(logits, images, gamma), expected)


def test_the_gradient_of_a_pack_is_that_of_all_its_images() -> None:
    images = torch.randn(6, 1, 3, 3, requires_grad=True)
    logits = images.view(3, 2, -1).sum((1, 2))
    assert gradient_penalty(logits, images, torch.ones(3)) == pytest.approx(2 * 9 / 2)


def test_the_one_centred_penalty_is_the_distance_of_the_length_from_one() -> None:
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    assert one_centred_penalty(images.sum((1, 2, 3)), images) == pytest.approx((3 - 1) ** 2)


def test_the_matching_penalty_is_the_sixth_power_of_both_lengths() -> None:
    """Of logits w x + v e: (|w| + |v|)^6 (Tao 2020, section 3.3), whatever comes behind them."""
    w, v = torch.tensor([3.0, 4.0]) / 5, torch.tensor([0.0, 0.5, 0.0])
    images, texts = torch.randn(5, 1, 1, 2), torch.randn(5, 3)
    images.requires_grad_()
    texts.requires_grad_()
    logits = (images.flatten(1) @ w + texts @ v)[:3]
    assert matching_penalty(logits, images, texts).item() == pytest.approx(1.5**6, rel=1e-4)


def test_contrast_asks_which_text_of_a_group_is_a_pictures_own() -> None:
    """By cosines over 0.1: those of strangers are 0 here, of a picture and its own text 1."""
    n = CONTRAST_GROUP
    apart, c = torch.eye(2 * n), torch.arange(2.0 * n)[:, None]
    sure = contrast(apart, apart, c).item()
    assert sure == pytest.approx(math.log(1 + (n - 1) * math.exp(-10)), rel=1e-3)
    assert contrast(apart, apart.roll(n, 0), c).item() == pytest.approx(math.log(n))


def test_contrast_takes_any_picture_of_the_same_text_for_right() -> None:
    pictures, texts = torch.eye(CONTRAST_GROUP), torch.ones(CONTRAST_GROUP, 1)
    assert contrast(pictures, pictures.roll(1, 0), texts).item() == pytest.approx(0, abs=1e-6)


def test_images_of_a_pack_are_interpolated_alike() -> None:
    between = interpolated(torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2), torch.tensor([0, 0.25]))
    assert between[:, 0, 0, 0].tolist() == [0, 0, 0.25, 0.25]


def test_lecam_pulls_logits_to_the_mean_of_the_other_side() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([-1.0, -3.0])
    assert lecam(real, fake, torch.tensor([3.0, -2.0])) == (16 + 36) / 2 + (16 + 36) / 2
    assert lecam(real, real, torch.tensor([3.0, 3.0])) == 2


def test_orthogonality_counts_the_products_of_different_rows_only() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[3.0, 0.0], [1.0, 2.0]])
    network = torch.nn.Sequential(layer, torch.nn.Embedding(3, 4), BatchNorm(4, group=2))
    weights = matrices(network)
    assert len(weights) == 1
    assert orthogonality(weights) == 3**2 + 3**2
    layer.weight.data = torch.tensor([[0.0, 5.0], [2.0, 0.0]])
    assert orthogonality(weights) == 0


def test_set_variance_is_the_mean_over_pixels_of_the_variance_over_images() -> None:
    images = torch.randn(64, 1, 8, 8)
    expected = images.var(0, unbiased=False).mean()
    assert torch.allclose(set_variance(images, Ranks()), expected)
    assert set_variance(images[:1].expand(64, -1, -1, -1), Ranks()) == pytest.approx(0, abs=1e-9)
