"""The guide: it learns from real pictures and their texts, then stands still, and G pays by it."""

from __future__ import annotations

import pytest
import torch

from tests.training import run_rounds, squares, tiny
from workers.recipes.gan import Gan
from workers.training.guide import Guide
from workers.training.ranks import Ranks

N = 64


def guide_of(recipe: Gan) -> Guide:
    assert recipe._guide is not None
    return recipe._guide


def guided() -> Gan:
    """A recipe whose guide has learned from 3,000 pictures."""
    return run_rounds(tiny("text-to-image", guide={"kimg": 3}), Ranks(), 0)[0]


def test_it_tells_a_pictures_own_text_from_anothers() -> None:
    recipe = guided()
    texts, (reals, numbers) = recipe._conditions, recipe._reals.of(1000)
    labels = texts.of_reals(numbers, 1000, N)
    own, other = texts.told(labels), texts.mismatched(labels, 1000, N)
    assert own is not None
    assert other is not None
    with torch.no_grad():
        misfits = [guide_of(recipe).misfit(reals, c).item() for c in (own, other)]
    assert misfits[0] < misfits[1] / 2


def test_it_stands_still_while_g_pays_by_it() -> None:
    weight = 0.5
    losses, misfits = [], []
    for guide_weight in (weight, 0):
        recipe = Gan(tiny("text-to-image", guide={"weight": guide_weight}), squares(), Ranks())
        new = recipe._g_step.make(0)
        losses.append(recipe._g_step(new, torch.zeros(N), step=0, progress=0.0))
        if recipe._guide is not None:
            c = recipe._conditions.told(new.labels)
            assert c is not None
            misfits.append(recipe._guide.misfit(new.images.detach(), c))
    assert (losses[0] - losses[1]).item() == pytest.approx(weight * misfits[0].item(), rel=1e-4)

    recipe = guided()
    before = {k: v.clone() for k, v in guide_of(recipe).network.state_dict().items()}
    recipe.step(0, 0.0)
    after = guide_of(recipe).network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_keeps_it() -> None:
    recipe = guided()
    recipe.step(0, 0.0)
    fresh = Gan(recipe.config, squares(), Ranks())
    fresh.load_state(recipe.networks(), recipe.optimizers(), None)
    ours, theirs = (guide_of(r).network.state_dict() for r in (recipe, fresh))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
