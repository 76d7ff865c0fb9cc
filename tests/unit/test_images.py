"""Sheets of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from shared.images import captioned, grid


@pytest.mark.parametrize("channels", [1, 3])
def test_a_caption_stands_beside_each_row(channels: int) -> None:
    images = np.full((6, 32, 32, channels), 7, np.uint8)
    sheet = grid(images, columns=2)
    shown = captioned(sheet, ["a cat", "", "a word too many " * 50])
    assert shown.shape == (sheet.shape[0], 160 + sheet.shape[1], channels)
    assert np.array_equal(shown[:, 160:], sheet)
    written = [(part != 128).any() for part in np.array_split(shown[:, :160], 3)]
    assert written == [True, False, True]
    assert not (shown[-4:, :160] != 128).any()  # a long one ends within its row
