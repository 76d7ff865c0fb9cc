"""Counter-based streams: the published numbers, whoever asks and when."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.philox import philox

words = st.tuples(*[st.integers(0, 2**64 - 1)] * 2)


@given(key=words, counter=words)
def test_it_is_philox_of_this_key_and_counter(
    key: tuple[int, int], counter: tuple[int, int]
) -> None:
    known = np.random.Philox(
        key=np.array(key, np.uint64), counter=np.array([0, 0, *counter], np.uint64)
    )
    ours = philox(key, counter).bit_generator
    assert ours.random_raw(8).tolist() == known.random_raw(8).tolist()
