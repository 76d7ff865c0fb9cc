"""The objectives' gradients are those of the papers, and of the lecture's remedy."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from workers.training.objectives import OBJECTIVES
from workers.training.penalties import gradient_penalty
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
    fake.grad = None
    OBJECTIVES[name].loss_g(real.detach(), fake, None).backward()
    assert (fake.grad < 0).all()


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


def test_set_variance_is_the_mean_over_pixels_of_the_variance_over_images() -> None:
    images = torch.randn(64, 1, 8, 8)
    expected = images.var(0, unbiased=False).mean()
    assert torch.allclose(set_variance(images, Ranks()), expected)
    assert set_variance(images[:1].expand(64, -1, -1, -1), Ranks()) == pytest.approx(0, abs=1e-9)
