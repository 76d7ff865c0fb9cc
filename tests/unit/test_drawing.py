"""The same seed gives the same bytes, whatever a picture is drawn together with."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from services.serving.answers import zipped
from services.serving.drawing import Draw, Drawer, label_number, plans, spares
from shared.errors import InvalidInput
from shared.images import Pixels
from shared.schemas.networks import GeneratorConfig
from tests.forgers import forger

CONFIGS = [
    GeneratorConfig(size=28, num_classes=10),
    GeneratorConfig(size=32, channels=3, z_dim=100),
    GeneratorConfig(size=64, channels=3, width=8, num_classes=3),
    GeneratorConfig(architecture="residual", size=16, width=8, num_classes=3),
    GeneratorConfig(architecture="biggan", size=16, width=8, num_classes=3, attention=8),
    GeneratorConfig(architecture="dfgan", size=16, width=8, text_dim=8),
]


def drawer(config: GeneratorConfig) -> Drawer:
    torch.set_num_threads(1)
    return Drawer(forger(config))


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: f"{config.architecture}{config.size}"
)
def test_a_picture_does_not_depend_on_its_company(config: GeneratorConfig) -> None:
    artist = drawer(config)
    rng = random.Random(7)
    seen: dict[tuple[int, int, int | None, float], Pixels] = {}
    for _ in range(25):
        draws = [
            Draw(
                seed=rng.choice([0, 1, 2**32 - 1]),
                indices=range(start := rng.randrange(40), start + rng.choice([1, 1, 2, 5, 17, 64])),
                label=rng.choice([None, rng.randrange(config.num_classes)])
                if config.num_classes
                else None,
                truncation=rng.choice([1.0, 0.5]),
            )
            for _ in range(rng.randint(1, 6))
        ]
        for draw, pixels in zip(draws, artist.draw(draws), strict=True):
            assert pixels.shape == (len(draw.indices), config.size, config.size, config.channels)
            for index, picture in zip(draw.indices, pixels, strict=True):
                name = (draw.seed, index, draw.label, draw.truncation)
                assert np.array_equal(seen.setdefault(name, picture.copy()), picture), name
    different = {picture.tobytes() for picture in seen.values()}
    assert len(different) > len(seen) // 2


def test_a_batch_is_cut_so_that_it_takes_least() -> None:
    # A piece costs 4, a row 1: 3 rows are done soonest as 4, and 9 as 8 and 1.
    small = plans({size: 4 + size for size in (8, 4, 2, 1)}, 11)
    assert [sorted(plan) for plan in small[:10]] == [
        *([], [1], [2], [4], [4], [8], [8], [8], [8], [1, 8])
    ]
    assert sorted(small[11]) == [4, 8]
    # Only rows cost: none is wasted.
    assert all(sum(plan) == n for n, plan in enumerate(plans({8: 8.0, 2: 2.0, 1: 1.0}, 11)))


def test_spares_are_drawn_where_a_picture_then_costs_at_most_half() -> None:
    # A batch costs 9, a row 1: 11 rows cost twice as much as one, and 19 as five, but 5 * 4 > 19.
    assert spares([9.0 + n for n in range(40)])[1:6] == [10, 11, 12, 13, 0]
    # Only rows cost: two for the price of two.
    assert spares([float(n) for n in range(40)]) == [0] * 40


def test_the_classes_take_turns_from_the_seed_on() -> None:
    network = forger(CONFIGS[2])
    assert Draw(0, range(5)).conditions(network).tolist() == [0, 1, 2, 0, 1]
    assert Draw(1, range(1, 3)).conditions(network).tolist() == [2, 0]
    assert Draw(1, range(2), label=2).conditions(network).tolist() == [2, 2]


def test_the_captions_take_turns_unless_there_is_a_text() -> None:
    network = forger(CONFIGS[-1])
    turns = Draw(199, range(2)).conditions(network)
    assert torch.equal(turns, network.examples[[199, 0]])
    text = torch.ones(8)
    assert torch.equal(Draw(0, range(2), text=text).conditions(network), text.expand(2, 8))


def test_a_class_is_named_by_number_or_name() -> None:
    names = ["shirt", "bag", "7"]
    assert label_number(None, names, 3, pointer="/label") is None
    assert label_number("bag", names, 3, pointer="/label") == 1
    assert label_number("7", names, 3, pointer="/label") == 2
    assert label_number("1", names, 3, pointer="/label") == label_number(1, names, 3, pointer="")
    for wrong in (3, -1, "hat", "9"):
        with pytest.raises(InvalidInput, match="shirt, bag") as error:
            label_number(wrong, names, 3, pointer="/label")
        assert error.value.errors[0].pointer == "/label"
    with pytest.raises(InvalidInput, match="none"):
        label_number(0, [], 0, pointer="/label")


def test_a_zip_of_the_same_pictures_has_the_same_bytes() -> None:
    (pixels,) = drawer(CONFIGS[0]).draw([Draw(3, range(3))])
    assert zipped(pixels, "png", start=7) == zipped(pixels.copy(), "png", start=7)
