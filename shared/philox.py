"""Random numbers from a key and a counter (Philox 4x64, Salmon 2011): no state is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray


class _Key(ISeedSequence):
    """Hands Philox its key. Given as `key`, numpy would also ask the system for entropy that it
    does not use: three times the time, and a wait for the interpreter's lock."""

    def __init__(self, key: tuple[int, int]) -> None:
        self._words = np.array(key, np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint64) -> NDArray[Any]:
        assert (n_words, dtype) == (2, np.uint64)
        return self._words


def philox(key: tuple[int, int], counter: tuple[int, int]) -> np.random.Generator:
    """The stream of (key, counter), integers in [0, 2^64). Streams whose counters differ do not
    meet within 2^128 draws."""
    # numpy's stubs know of its own SeedSequence only, its documentation of any ISeedSequence.
    words = np.array([0, 0, *counter], np.uint64)
    bits = np.random.Philox(seed=_Key(key), counter=words)  # type: ignore[arg-type]
    return np.random.Generator(bits)
