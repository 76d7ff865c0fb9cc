"""bfloat16 within G and D: what it may change, and what it may not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shared.networks.catalog import build_discriminator
from shared.networks.layers import BatchNorm, minibatch_std
from shared.schemas.networks import NORMS, DiscriminatorConfig
from shared.schemas.presets import PRESETS
from tests.training import CALM, run_rounds, tiny
from workers.training.penalties import gradient_penalty, one_centred_penalty
from workers.training.precision import autocast
from workers.training.ranks import Ranks

CPU = torch.device("cpu")
ROUNDS = 8


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_stay_near_those_of_float32(preset: str) -> None:
    overrides = CALM.get(preset, {})
    _, ours = run_rounds(tiny(preset, **overrides), Ranks(), ROUNDS)
    coarse, theirs = run_rounds(tiny(preset, **overrides, precision="bfloat16"), Ranks(), ROUNDS)
    assert all(math.isfinite(value) for means in theirs for value in means.values())
    for name in ("loss_d", "loss_g"):
        # 0.01 was the largest seen.
        assert [m[name] for m in theirs] == pytest.approx([m[name] for m in ours], abs=0.04)
    assert ours != theirs
    kept = {**coarse.networks(), **coarse.optimizers()}
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


@pytest.mark.parametrize("architecture", NORMS)
@pytest.mark.parametrize("penalty", ["zero-centred", "one-centred"])
def test_a_gradient_penalty_leads_the_same_way(architecture: str, penalty: str) -> None:
    torch.manual_seed(0)
    D = build_discriminator(DiscriminatorConfig(architecture=architecture, size=32, width=16))
    images = torch.randn(16, 1, 32, 32)
    exact, coarse = (_of_penalty(D, images, penalty, p) for p in ("float32", "bfloat16"))
    assert coarse[0] == pytest.approx(exact[0], rel=0.05)
    # 0.998 was the smallest seen.
    assert torch.cosine_similarity(exact[1], coarse[1], dim=0) > 0.99


def _of_penalty(
    D: torch.nn.Module, images: Tensor, penalty: str, precision: str
) -> tuple[float, Tensor]:
    """The penalty and its gradient by D's weights."""
    x = images.clone().requires_grad_()
    with autocast(precision, CPU):
        logits = D(x)
    assert logits.dtype == torch.float32
    value = (
        gradient_penalty(logits, x, torch.ones(16))
        if penalty == "zero-centred"
        else one_centred_penalty(logits, x)
    )
    D.zero_grad()
    value.backward()
    gradients = [p.grad.flatten() for p in D.parameters() if p.grad is not None]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return value.item(), torch.cat(gradients)


def test_statistics_of_a_batch_are_float32() -> None:
    x = torch.randn(32, 5, 4, 4) * 3 + 1
    norm, other = BatchNorm(5, group=16), BatchNorm(5, group=16)
    y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16
    other(x.bfloat16().float())
    assert torch.allclose(norm.statistics, other.statistics, atol=1e-5)
    h = torch.randn(16, 6).bfloat16()
    assert torch.equal(minibatch_std(h, 8), minibatch_std(h.float(), 8))
