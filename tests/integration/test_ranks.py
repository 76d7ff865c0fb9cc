"""Two ranks do what one does: the same batches, the same repository, losses to rounding."""

from __future__ import annotations

import numpy as np
import pytest

from shared.schemas.presets import PRESETS
from tests.training import CALM, PARTS, on_two_ranks, run_rounds, tiny
from workers.training.ranks import Ranks

ROUNDS = 50


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [*((preset, CALM.get(preset, {})) for preset in PRESETS), *PARTS.values()],
    ids=[*PRESETS, *PARTS],
)
def test_losses_and_repository_are_the_same(preset: str, overrides: dict) -> None:
    config = tiny(preset, **overrides)
    one, history = run_rounds(config, Ranks(), ROUNDS)
    two = on_two_ranks(config, ROUNDS)
    for name in ("loss_d", "loss_g"):
        ours = [means[name] for means in history]
        theirs = [means[name] for means in two["history"]]
        # Sums are rounded in another order, and training doubles a difference every few rounds:
        # 1.5e-3 after 8 rounds and 2.5 % after 50 were the largest seen.
        np.testing.assert_allclose(theirs[:8], ours[:8], atol=5e-3, err_msg=name)
        np.testing.assert_allclose(theirs, ours, rtol=0.05, atol=0.05, err_msg=name)
    if one.replay:
        held = {name: tensor.numpy() for name, tensor in vars(one.replay.state()).items()}
        np.testing.assert_array_equal(held["labels"], two["replay"]["labels"])
        np.testing.assert_array_equal(held["born"], two["replay"]["born"])
        difference = np.abs(held["images"].astype(float) - two["replay"]["images"])
        assert difference.mean() < 1.0
