"""Augmentation: each change alone, gradients through all, nothing where nothing is asked."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.schemas.recipes import AugmentConfig
from workers.training import augment as augmentation
from workers.training.augment import DRAWS, NUM_DRAWS

NONE = {"flip": False, "colour": 0, "shift": 0, "cutout": 0}
FLIP, BRIGHTNESS, SATURATION, CONTRAST, SHIFT, CUTOUT = range(6)


def pictures(n: int = 3, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, 8, 8, generator=generator) * 2 - 1


def drawn(n: int = 3, **values: list[float]) -> torch.Tensor:
    """Draws that leave all pictures alone but for the changes that are named."""
    parts = [torch.full((n, width), 0.999) for width in DRAWS]
    for name, numbers in values.items():
        parts[globals()[name]] = torch.tensor([numbers] * n)
    return torch.cat(parts, dim=1)


def augment(x: torch.Tensor, draws: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    return augmentation.augment(x, draws, config, torch.tensor(config.p))


def test_with_probability_0_nothing_changes() -> None:
    x = pictures()
    assert torch.equal(augment(x, torch.rand(3, NUM_DRAWS), AugmentConfig(p=0)), x)


def test_a_flip_mirrors() -> None:
    config = AugmentConfig(**{**NONE, "flip": True})
    assert torch.equal(augment(pictures(), drawn(FLIP=[0.4]), config), pictures().flip(3))
    assert torch.equal(augment(pictures(), drawn(FLIP=[0.6]), config), pictures())


def test_brightness_moves_all_pixels_alike() -> None:
    config = AugmentConfig(p=0.5, **{**NONE, "colour": 1})
    changed = augment(pictures(), drawn(BRIGHTNESS=[0, 1.0]), config)
    assert torch.allclose(changed - pictures(), torch.tensor(0.5), atol=1e-6)


def test_saturation_0_is_grey_and_contrast_keeps_the_mean() -> None:
    config = AugmentConfig(p=0.5, **{**NONE, "colour": 1})
    grey = augment(pictures(), drawn(SATURATION=[0, 0.0]), config)
    assert torch.allclose(grey, pictures().mean(1, keepdim=True).expand_as(grey), atol=1e-6)
    flat = augment(pictures(), drawn(CONTRAST=[0, 0.0]), config)
    assert torch.allclose(flat.mean((1, 2, 3)), pictures().mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(flat.std((1, 2, 3)), pictures().std((1, 2, 3)) / 2, atol=1e-6)


def test_a_shift_moves_by_whole_pixels_and_uncovers_grey() -> None:
    config = AugmentConfig(p=0.5, **{**NONE, "shift": 0.25})
    x = pictures()
    moved = augment(x, drawn(SHIFT=[0, 1.0, 0.0]), config)  # 2 down, 2 to the left
    assert torch.equal(moved[:, :, 2:, :-2], x[:, :, :-2, 2:])
    assert moved[:, :, :2].abs().max() == moved[:, :, :, -2:].abs().max() == 0


def test_a_cutout_is_a_square_around_its_centre() -> None:
    config = AugmentConfig(p=0.5, **{**NONE, "cutout": 0.5})
    cut = augment(pictures() + 5, drawn(CUTOUT=[0, 0.5, 0.5]), config)
    rows, columns = (cut[0, 0] == 0).nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([3, 4, 5], [3, 4, 5])


@given(seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([1, 3]))
def test_pictures_are_changed_one_by_one_and_gradients_flow(seed: int, channels: int) -> None:
    config = AugmentConfig(p=0.6, flip=True)
    draws = torch.rand(4, NUM_DRAWS, generator=torch.Generator().manual_seed(seed))
    x = pictures(4, channels).requires_grad_()
    together = augment(x, draws, config)
    alone = torch.cat([augment(x[i : i + 1], draws[i : i + 1], config) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-6)
    (gradient,) = torch.autograd.grad(together.sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
