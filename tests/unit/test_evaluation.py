"""The yardstick and the scores: of real pictures, of copies, of wrong classes, of noise."""

from __future__ import annotations

import pytest
import torch

from tests.training import as_in_an_attempt, dirty_squares
from workers.evaluation.measures import Read, measures
from workers.evaluation.scoring import scores_of
from workers.evaluation.yardstick import (
    NUM_FEATURES,
    Yardstick,
    accuracy,
    num_steps,
    train_yardstick,
    turned,
)
from workers.training.data import TrainingData

NUM_CLASSES = 4
N = 512
SEEN, NOT_SEEN = dirty_squares(N, seed=0), dirty_squares(N, seed=1)


def trained(data: TrainingData, num_classes: int = NUM_CLASSES) -> Yardstick:
    with as_in_an_attempt():
        return train_yardstick(data, num_classes, seed=0, on_step=lambda: None)


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    return trained(SEEN)


def test_it_learns_the_classes_and_the_same_again(yardstick: Yardstick) -> None:
    # A mirrored batch confuses left and right, so the squares' four classes are told two by two.
    assert accuracy(yardstick, SEEN) > 0.45
    again = trained(SEEN).state_dict()
    for name, tensor in yardstick.state_dict().items():
        assert torch.equal(tensor, again[name]), name


def test_its_features_have_one_scale(yardstick: Yardstick) -> None:
    features, votes = yardstick.read(SEEN.images)
    assert features.shape == (N, NUM_FEATURES)
    assert votes.shape == (N,)
    assert features.var(0).mean().item() == pytest.approx(1, rel=1e-4)


def test_without_classes_it_learns_quarter_turns() -> None:
    skies = SEEN.images // 8
    skies[:, :, :2] += 150
    data = TrainingData(skies, None, None)
    network = trained(data, 0)
    assert network.num_classes == 4
    assert accuracy(network, data) > 0.9


def test_turned_is_rot90() -> None:
    images = torch.arange(4 * 9, dtype=torch.uint8).view(4, 1, 3, 3)
    out = turned(images, torch.arange(4))
    for k in range(4):
        assert torch.equal(out[k], images[k].rot90(k, (1, 2)))


@pytest.mark.parametrize("size", [8, 12, 28, 64])
def test_any_size_has_a_yardstick(size: int) -> None:
    network = Yardstick(size=size, channels=3, num_classes=2)
    network.eval()
    features, _ = network.read(torch.zeros(3, 3, size, size, dtype=torch.uint8))
    assert features.shape == (3, NUM_FEATURES)


def test_it_can_be_stopped_at_any_step() -> None:
    steps = 0

    def stop_at_3() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError), as_in_an_attempt():
        train_yardstick(SEEN, NUM_CLASSES, seed=0, on_step=stop_at_3)
    assert steps == 3


def test_small_datasets_get_steps_enough() -> None:
    assert num_steps(100) == num_steps(1000) == 1000
    assert num_steps(60_000) == 1875


def test_scores_lie_between_real_pictures_and_noise(yardstick: Yardstick) -> None:
    worse = dirty_squares(N, seed=2, dirt=55.0)
    scores = scores_of(
        worse.images, worse.labels, seen=SEEN, reference=NOT_SEEN, yardstick=yardstick, seed=0
    )
    distance = scores["frechet_distance"]
    assert distance.floor < distance.value < distance.ceiling
    assert set(scores) == {
        *("frechet_distance", "kernel_distance", "recall", "coverage", "precision", "density"),
        *("nearest_ratio", "label_agreement", "class_entropy"),
    }


def test_copies_have_no_distance_to_what_was_seen(yardstick: Yardstick) -> None:
    copies = scores_of(
        SEEN.images, SEEN.labels, seen=SEEN, reference=NOT_SEEN, yardstick=yardstick, seed=0
    )
    assert copies["nearest_ratio"].value == pytest.approx(0, abs=1e-3)


def test_classes_are_scored_only_where_there_are_some(yardstick: Yardstick) -> None:
    read = Read.of(yardstick, SEEN.images)
    one = Read(read.features, torch.zeros(N, dtype=torch.int64))
    arguments = {"reference": read, "training": read}
    found = measures(one, torch.arange(N) % 4, **arguments, num_classes=4)
    assert found["class_entropy"] == 0
    assert found["label_agreement"] == 0.25
    assert "label_agreement" not in measures(read, None, **arguments, num_classes=4)
    assert "class_entropy" not in measures(read, None, **arguments, num_classes=0)
