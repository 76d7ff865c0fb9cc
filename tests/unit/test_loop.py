"""The loop: stops that leave a checkpoint, remedies that are really off."""

from __future__ import annotations

import functools

import pytest
import torch

from shared.errors import TrainingFailed
from tests.training import run_rounds, tiny, train_steps
from workers.recipes.gan import Gan
from workers.training.loop import Checkpoint, Grid, Metrics
from workers.training.ranks import Ranks
from workers.training.reals import to_float

SHORT = {"kimg": 0.9, "checkpoint_every_kimg": 0.3, "grid_every_kimg": 0.45, "report_every_s": 0.01}


def tensors(recipe: Gan) -> dict[str, torch.Tensor]:
    return {**recipe.networks(), **{f"adam.{k}": v for k, v in recipe.optimizers().items()}}


def assert_same(one: Gan, other: Gan) -> None:
    """Every tensor of their states, bit for bit."""
    found = tensors(other)
    for name, tensor in tensors(one).items():
        assert torch.equal(found[name], tensor), name


def test_an_adaptive_augmentation_goes_on_where_it_was() -> None:
    config = tiny("modern", augment={"p": 0.5, "target": 0.6, "adapt_kimg": 5.0}, **SHORT)
    whole, reports, _ = train_steps(config)
    checkpoint = next(report for report in reports if isinstance(report, Checkpoint))
    resumed, _, _ = train_steps(config, start=checkpoint)
    assert checkpoint.optimizers["augment.p"] != 0.5
    assert_same(whole, resumed)


@pytest.mark.parametrize(("target", "ends"), [(0.01, "more"), (0.99, "less")])
def test_d_that_is_too_sure_sees_more_augmentation(target: float, ends: str) -> None:
    augment = {"p": 0.5, "target": target, "adapt_kimg": 10.0}
    _, history = run_rounds(tiny("modern", augment=augment), Ranks(), 30)
    p = [means["augment_p"] for means in history]
    assert p[-1] > 0.55 if ends == "more" else p[-1] < 0.48


def test_a_stop_leaves_a_checkpoint_to_go_on_from() -> None:
    config = tiny("modern", **SHORT)
    whole, _, _ = train_steps(config)
    _, reports, complete = train_steps(config, stop_at_step=8)
    assert not complete
    last = reports[-1]
    assert isinstance(last, Checkpoint)
    assert last.final
    assert last.step == 8
    resumed, _, complete = train_steps(config, start=last)
    assert complete
    assert_same(whole, resumed)


def test_a_stop_before_the_first_step_leaves_nothing_to_go_on_from() -> None:
    _, reports, complete = train_steps(tiny("lecture", **SHORT), stop_at_step=0)
    assert not complete
    assert not any(isinstance(report, Checkpoint) for report in reports)


def test_what_comes_before_the_first_step_can_be_stopped() -> None:
    config = tiny("text-to-image", **SHORT | {"kimg": 1e6}, guide={"kimg": 1e6})
    _, reports, complete = train_steps(config, stop_at_step=8)
    assert not complete
    assert [type(report) for report in reports] == [Grid]


def test_it_reports_progress_to_the_end() -> None:
    _, reports, _ = train_steps(tiny("modern-conditional", **SHORT))
    metrics = [report for report in reports if isinstance(report, Metrics)]
    assert metrics[-1].kimg == pytest.approx(0.9, abs=0.07)
    assert metrics[-1].eta_s == 0
    assert {"loss_d", "loss_g", "variance_fake"} <= metrics[-1].values.keys()
    grids = [report for report in reports if isinstance(report, Grid)]
    assert [grid.kimg for grid in grids] == pytest.approx([0.0, 0.45, 0.9], abs=0.07)
    assert grids[0].images.shape == (80, 16, 16, 1)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice() -> None:
    penalties = {"r1_gamma": 1e38, "r2_gamma": 1e38, "every": 1}
    config = tiny("modern", penalties=penalties, **SHORT)
    with pytest.raises(TrainingFailed, match=r"not finite at .* lower the learning rates"):
        train_steps(config)


@functools.cache
def without_remedies() -> Gan:
    recipe, _ = run_rounds(tiny("lecture"), Ranks(), 3)
    return recipe


def test_the_same_run_ends_with_the_same_bits() -> None:
    again, _ = run_rounds(tiny("lecture"), Ranks(), 3)
    assert_same(without_remedies(), again)


@pytest.mark.parametrize(
    "remedy",
    [
        {"discriminator": {"dropout": 0.3}},
        {"label_flip": 0.2},
        {"discriminator": {"variance_input": True}},
        {"augment": {"p": 0.5}},
        {"discriminator": {"pac": 2}},
        {"penalties": {"gp_weight": 10.0}},
        {"penalties": {"lecam_weight": 0.1}},
        {"num_d_steps": 2},
    ],
    ids=[
        *("dropout", "label_flip", "variance_input", "augment"),
        *("pac", "gp_weight", "lecam_weight", "num_d_steps"),
    ],
)
def test_each_remedy_has_its_own_switch(remedy: dict) -> None:
    plain = without_remedies()
    with_remedy, history = run_rounds(tiny("lecture", **remedy), Ranks(), 3)
    assert not torch.equal(plain.G.linear.weight, with_remedy.G.linear.weight)
    assert all(abs(value) < 1e6 for value in history[-1].values())


def test_the_bootstrap_teaches_d_to_tell_reals_from_noise() -> None:
    recipe, _ = run_rounds(tiny("lecture", bootstrap={"max_steps": 100}), Ranks(), 0)
    reals, _ = recipe._reals.of(0)
    noise = recipe.replay.held.images
    assert (recipe.D(reals) > 0).float().mean() > 0.9
    assert (recipe.D(to_float(noise)) < 0).float().mean() > 0.9


def test_a_conditional_gan_learns_where_its_classes_lie() -> None:
    """Squares in four quarters: the bright one is the asked one (0.94 to 0.98 of them, 5 seeds)."""
    config = tiny("modern-conditional", kimg=20, ema_half_life_kimg=1.0)
    recipe, _, _ = train_steps(config)
    images = torch.from_numpy(recipe.samples()).float()[..., 0]
    labels = torch.tensor([i % 10 % 4 for i in range(80)])
    quarters = images.view(80, 2, 8, 2, 8).mean((2, 4)).flatten(1)
    assert (quarters.argmax(1) == labels).float().mean() > 0.8
