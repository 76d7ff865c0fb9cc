"""Training with text: whose caption goes with which picture, and what D pays for."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.training import squares, tiny
from workers.recipes.gan import Gan
from workers.training.conditions import Texts, conditions
from workers.training.counters import Counters
from workers.training.data import TrainingData
from workers.training.penalties import contrast
from workers.training.ranks import Ranks
from workers.training.reals import to_float

N = 64
NO_PENALTY = {"matching_weight": 0, "contrast_weight": 0}


def texts(data: TrainingData, ranks: Ranks | None = None) -> Texts:
    ranks = ranks or Ranks()
    config = tiny("text-to-image")
    found = conditions(config, data, Counters(0, ranks), ranks.device)
    assert isinstance(found, Texts)
    return found


def test_a_real_picture_has_one_of_its_own_captions() -> None:
    data = squares()
    assert data.captions is not None
    assert data.texts is not None
    numbers = torch.arange(N)
    seen = set()
    for step in range(8):
        labels = texts(data).of_reals(numbers, step, N)
        for number, label in zip(numbers.tolist(), labels.tolist(), strict=True):
            sentence = data.captions.sentences[label]
            assert sentence in (data.texts[number] or "").splitlines()
            seen.add((number, label))
    assert len(seen) > 1.4 * N  # every other picture has two


def test_a_mismatched_caption_never_is_the_own_one() -> None:
    data = squares()
    captions = data.captions
    assert captions is not None
    ours = texts(data)
    for step in range(20):
        labels = ours.drawn(step, N)
        other = ours.mismatched(labels, step, N)
        assert not (other == ours.told(labels)).all(1).any()
        assert torch.equal(other, ours.mismatched(labels, step, N))


def test_new_pictures_have_captions_as_often_as_real_ones() -> None:
    data = squares()
    assert data.captions is not None
    drawn = torch.cat([texts(data).drawn(step, N) for step in range(200)])
    shares = torch.bincount(drawn) / len(drawn)
    expected = torch.bincount(data.captions.rows) / len(data.captions.rows)
    assert torch.allclose(shares, expected, atol=0.02)


def test_g_in_training_is_told_a_caption_under_noise() -> None:
    ours = texts(squares())
    labels = ours.drawn(0, N)
    noise = ours.told_in_training(labels, 0, N) - ours.told(labels)
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    assert noise.mean() == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize("method", ["told_in_training", "mismatched"])
def test_each_rank_draws_its_share(method: str) -> None:
    data = squares()
    labels = texts(data).drawn(3, N)
    whole = getattr(texts(data), method)(labels, 3, N)
    shares = []
    for rank in range(2):
        ours = texts(data, Ranks(rank, 2))
        shares.append(getattr(ours, method)(ours.drawn(3, N), 3, N))
    assert torch.equal(torch.cat(shares), whole)


def test_d_is_trained_on_three_pairs() -> None:
    """Tao 2020, section 3.2: max(0, 1 - D(x, e)) + (max(0, 1 + D(G(z), e)) + max(0, 1 + D(x, e')))
    / 2, averaged; here without penalty and augmentation."""
    recipe = Gan(tiny("text-to-image", penalties=NO_PENALTY, augment={"p": 0}), squares(), Ranks())
    D, ours = copy.deepcopy(recipe.D), recipe._conditions
    reals, numbers = recipe._reals.of(0)
    new = recipe._g_step.make(0)
    fakes = recipe._fakes(new, 0)
    own = ours.of_reals(numbers, 0, N)
    recipe._train_d(reals, numbers, fakes, step=0, progress=0.0)

    with torch.no_grad():
        match = F.relu(1 - D(reals, ours.told(own))).mean()
        fake = F.relu(1 + D(to_float(fakes.images), ours.told(new.labels))).mean()
        mismatch = F.relu(1 + D(reals, ours.mismatched(own, 0, N))).mean()
    assert recipe._sums[0] == pytest.approx((match + fake / 2 + mismatch / 2).item(), rel=1e-5)


def test_d_pays_for_contrast_of_real_pictures_and_g_for_that_of_new_ones() -> None:
    weight, data = 0.5, squares()
    losses = {}
    for contrast_weight in (0, weight):
        penalties = NO_PENALTY | {"contrast_weight": contrast_weight}
        config = tiny("text-to-image", penalties=penalties, augment={"p": 0})
        recipe = Gan(config, data, Ranks())
        D, ours = copy.deepcopy(recipe.D), recipe._conditions
        reals, numbers = recipe._reals.of(0)
        new = recipe._g_step.make(0)
        loss_g = recipe._g_step(new, torch.zeros(N), step=0, progress=0.0)
        recipe._train_d(reals, numbers, recipe._fakes(new, 0), step=0, progress=0.0)
        losses[contrast_weight] = loss_g, recipe._sums[0]

    with torch.no_grad():
        for loss, images, told in (
            (0, new.images, ours.told(new.labels)),
            (1, reals, ours.told(ours.of_reals(numbers, 0, N))),
        ):
            expected = weight * contrast(*D.aligned(D.read(images), told), told)
            paid = losses[weight][loss] - losses[0][loss]
            assert paid.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_repository_keeps_each_fakes_caption() -> None:
    config = tiny("text-to-image", replay={"enabled": True, "capacity": 64, "num_new": 48})
    data = squares()
    assert data.captions is not None
    recipe = Gan(config, data, Ranks())
    assert recipe.replay is not None
    first = recipe.replay.held.labels
    assert first.max() < len(data.captions.sentences)
    recipe.step(0, 0.0)
    held = recipe.replay.held
    drawn = recipe._conditions.drawn(0, N)[recipe._kept_new]
    assert sorted(held.labels[held.born == 0].tolist()) == sorted(drawn.tolist())


def test_g_takes_its_examples_from_the_captions() -> None:
    data = squares()
    assert data.captions is not None
    recipe = Gan(tiny("text-to-image"), data, Ranks())
    assert torch.equal(recipe.G_ema.examples, data.captions.example_vectors())
    recipe.step(0, 0.0)
    assert torch.equal(recipe.G_ema.examples, data.captions.example_vectors())


def test_text_needs_captions_as_vectors() -> None:
    with pytest.raises(AssertionError, match="captions as vectors"):
        Gan(tiny("text-to-image"), replace(squares(), captions=None), Ranks())
