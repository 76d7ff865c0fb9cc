"""Who names no seed may get a picture that was drawn before: the same as by its seed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest

from services.serving.batching import Batcher
from services.serving.drawing import Draw, Drawer
from services.serving.models import LoadedModel
from services.serving.requests import MAX_SEED
from shared.images import Pixels
from tests.forgers import SMALL, forger


class Thrifty(Drawer):
    """Draws three pictures along with one, however long they take."""

    def spare(self, num_images: int) -> int:
        return 3 if num_images == 1 else 0


def as_bytes(pixels: Pixels, seed: int = 0) -> bytes:
    del seed
    return pixels.tobytes()


@pytest.fixture
def model() -> Iterator[LoadedModel]:
    with ThreadPoolExecutor(1) as executor:
        batcher = partial(Batcher, max_weight=64, executor=executor)
        nothing = cast(Any, None)  # neither card nor configuration is looked at
        yield LoadedModel(nothing, nothing, Thrifty(forger(SMALL)), batcher)


def test_who_asks_next_gets_the_pictures_of_the_next_seeds(model: LoadedModel) -> None:
    async def main() -> None:
        await model.draw(Draw(70, range(1)), as_bytes)  # a named seed leaves no spares behind
        answers = [await model.draw_any(seed, as_bytes) for seed in (5, 90, 91, 92, 93, 94)]
        assert [seed for seed, _ in answers] == [5, 6, 7, 8, 93, 94]
        for seed, body in answers:
            assert body == await model.draw(Draw(seed, range(1)), as_bytes)

    asyncio.run(main())


def test_no_seed_is_drawn_ahead_that_nobody_could_name(model: LoadedModel) -> None:
    async def main() -> None:
        answers = [await model.draw_any(seed, as_bytes) for seed in (MAX_SEED - 2, 4, 5)]
        assert [seed for seed, _ in answers] == [MAX_SEED - 2, MAX_SEED - 1, 5]

    asyncio.run(main())
