"""Presets: what does not fit is said as invalid input, never as a defect."""

from __future__ import annotations

import pytest

from shared.errors import InvalidInput
from shared.schemas.presets import PRESETS, resolve_preset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_side_that_no_network_doubles_to_is_invalid_input(preset: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve_preset(preset, size=50, channels=1, num_classes=3, overrides={})
    assert "size 50 is not" in caught.value.errors[0].detail
