"""IDX files and shards: what is written is read back, and what is damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from shared import idx
from shared.errors import CorruptObject, InvalidInput
from workers.training import shards
from workers.training.shards import ShardData


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, min_side=0, max_side=6)))
def test_idx_is_read_as_it_was_written(array: NDArray[np.uint8]) -> None:
    read = idx.decode(idx.encode(array))

    assert read.shape == array.shape
    assert (read == array).all()


@given(st.binary(max_size=64))
def test_any_bytes_are_idx_or_refused(data: bytes) -> None:
    try:
        array = idx.decode(data)
    except InvalidInput:
        return
    assert idx.encode(array) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd",  # floats
        b"\x00\x00\x08\x05" + bytes(20),  # five dimensions
        b"\x00\x00\x08\x03\x00\x00",  # cut in the header
        idx.encode(np.zeros((2, 3, 3), np.uint8))[:-1],
        idx.encode(np.zeros((2, 3, 3), np.uint8)) + b"x",
    ],
)
def test_damaged_idx_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        idx.decode(data)


@st.composite
def shard_data(draw: st.DrawFn) -> ShardData:
    n = draw(st.integers(1, 8))
    size, channels = draw(st.integers(1, 9)), draw(st.sampled_from([1, 3]))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return ShardData(
        images=draw(hnp.arrays(np.uint8, (n, size, size, channels))),
        labels=draw(hnp.arrays(np.int32, n, elements=st.integers(-1, 10_000))),
        texts=draw(st.lists(st.none() | text, min_size=n, max_size=n)),
    )


@given(shard_data())
def test_a_shard_is_read_as_it_was_written(shard: ShardData) -> None:
    data = shards.encode(shard)
    read = shards.decode(data, size=shard.images.shape[1], channels=shard.images.shape[3])

    assert (read.images == shard.images).all()
    assert (read.labels == shard.labels).all()
    assert read.texts == shard.texts
    assert shards.encode(read) == data


def test_a_shard_of_another_size_is_not_loaded() -> None:
    data = shards.encode(
        ShardData(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), ["", None])
    )

    with pytest.raises(CorruptObject, match="not 8 x 8 x 1"):
        shards.decode(data, size=8, channels=1)
    with pytest.raises(CorruptObject, match="not a Parquet file"):
        shards.decode(data[:-9], size=4, channels=1)
