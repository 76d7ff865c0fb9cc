"""Inception: the official file's tensors, torch-fidelity's numbers, and the scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.errors import InvalidInput
from shared.inception import find_inception
from tests.inceptions import CONVOLUTIONS, drawn_tensors, write_drawn
from tests.training import dirty_squares
from workers.evaluation.distances import kernel_distance
from workers.evaluation.inception import READ_AT_ONCE, Inception, tensorflow_resized
from workers.evaluation.inception_measures import inception_score, subset_kernel_distance
from workers.evaluation.inception_weights import load_inception


def nothing() -> None:
    """What reading calls before each batch, where nobody wants to know."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return load_inception(weights)[0]


def test_its_tensors_are_those_of_the_official_file() -> None:
    network = Inception()
    found = {k: v.shape for k, v in network.state_dict().items() if "num_batches" not in k}
    assert found == {name: tensor.shape for name, tensor in drawn_tensors().items()}
    assert len(found) == 472
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_850_960


def test_its_features_are_those_of_torch_fidelity(inception: Inception) -> None:
    """Its own network (commit 5e211a9) gave these numbers with the same weights and picture."""
    i = torch.arange(3 * 12 * 10)
    picture = ((i * i * 7 + i * 13) % 256).byte().view(1, 3, 12, 10)
    read = inception.read(picture, nothing)
    features = [3.2190323, 0.2560564, 0.2783895, 0.7091605, 0.2928164, 0.0]
    logits = [-2.3834434, -0.1679371, 0.9591725, -1.9915851, 1.1395926, 2.6109216]
    torch.testing.assert_close(read.features[0, ::400], torch.tensor(features), rtol=0, atol=1e-4)
    torch.testing.assert_close(read.logits[0, ::200], torch.tensor(logits), rtol=0, atol=1e-4)
    assert read.features.norm().item() == pytest.approx(47.683349, rel=1e-4)
    assert read.logits.norm().item() == pytest.approx(74.131874, rel=1e-4)


def test_a_grey_picture_is_one_of_three_equal_channels(inception: Inception) -> None:
    grey = dirty_squares(READ_AT_ONCE + 1, seed=0).images
    batches: list[int] = []
    read = inception.read(grey, lambda: batches.append(1))
    assert len(batches) == 2
    assert (read.features.shape, read.logits.shape) == ((9, 2048), (9, 1008))
    colour = inception.read(grey[:2].repeat(1, 3, 1, 1), nothing)
    torch.testing.assert_close(colour.features, read.features[:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (12, 9)])
def test_pictures_are_resized_by_tensorflows_rule(size: tuple[int, int]) -> None:
    height, width = size
    picture = torch.rand(height, width, generator=torch.Generator().manual_seed(0)).double()
    side = 7
    expected = torch.empty(side, side, dtype=torch.float64)
    for row in range(side):
        for column in range(side):
            y, x = row * height / side, column * width / side
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            of_pixels = (
                (picture[top, left], (1 - (y - top)) * (1 - (x - left))),
                (picture[top, right], (1 - (y - top)) * (x - left)),
                (picture[bottom, left], (y - top) * (1 - (x - left))),
                (picture[bottom, right], (y - top) * (x - left)),
            )
            expected[row, column] = sum(pixel * share for pixel, share in of_pixels)
    found = tensorflow_resized(picture.float()[None, None], side)[0, 0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6)


def test_weights_are_known_by_their_tensors_alone(weights: Path, tmp_path: Path) -> None:
    tensors = drawn_tensors()
    counters = {
        f"{line.split()[0]}.bn.num_batches_tracked": torch.tensor(0)
        for line in CONVOLUTIONS.read_text().splitlines()
    }
    again = tmp_path / "again.safetensors"
    save_file(dict(reversed(tensors.items())) | counters, again, metadata={"made": "again"})
    assert load_inception(again)[1] == load_inception(weights)[1]
    tensors["fc.bias"][0] += 1
    save_file(tensors, again)
    assert load_inception(again)[1] != load_inception(weights)[1]


def change_name(tensors: dict[str, Tensor]) -> None:
    tensors["fc.bais"] = tensors.pop("fc.bias")


def change_shape(tensors: dict[str, Tensor]) -> None:
    tensors["fc.weight"] = tensors["fc.weight"][:1000].contiguous()


def change_type(tensors: dict[str, Tensor]) -> None:
    tensors["fc.bias"] = tensors["fc.bias"].half()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            change_name,
            "2 tensors differ: fc.bais is float32 [1008], not known; "
            "fc.bias is missing, not float32 [1008]",
        ),
        (
            change_shape,
            "1 tensors differ: fc.weight is float32 [1000, 2048], not float32 [1008, 2048]",
        ),
        (change_type, "1 tensors differ: fc.bias is float16 [1008], not float32 [1008]"),
        (dict.clear, "472 tensors differ: Conv2d_1a_3x3.bn.bias is missing, not float32 [32]; "),
    ],
)
def test_wrong_tensors_are_named(
    change: Callable[[dict[str, Tensor]], None], says: str, tmp_path: Path
) -> None:
    tensors = drawn_tensors()
    change(tensors)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(InvalidInput) as error:
        load_inception(path)
    assert f"{path} does not hold Inception-v3 of 2015-12-05, {says}" in error.value.detail


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(InvalidInput, match=r"ELMYR_INCEPTION_WEIGHTS: cannot read .*weights\.pth"):
        load_inception(path)
    path.write_bytes(b"PK\x03\x04 no safetensors")
    with pytest.raises(InvalidInput, match=r"cannot read .*weights\.pth"):
        load_inception(path)


def test_without_a_path_it_is_said_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ELMYR_INCEPTION_WEIGHTS") as error:
        find_inception(None, pointer="/spec/features")
    assert error.value.errors[0].pointer == "/spec/features"
    assert find_inception(tmp_path) == tmp_path


def test_the_kernel_distance_is_the_mean_over_subsets() -> None:
    drawn = torch.Generator().manual_seed(0)
    pictures, reference = torch.randn(30, 4, generator=drawn), torch.randn(20, 4, generator=drawn)
    random = np.random.RandomState(2020)
    by_hand = []
    for _ in range(100):
        rows = random.choice(30, 20, replace=False)
        by_hand.append(kernel_distance(reference[random.permutation(20)], pictures[rows]))
    assert subset_kernel_distance(pictures, reference) == pytest.approx(np.mean(by_hand))


def test_the_inception_score_counts_classes_evenly_drawn() -> None:
    logits = torch.zeros(2000, 1008)
    assert inception_score(logits) == pytest.approx(1)
    logits[torch.arange(2000), torch.arange(2000) % 5] = 50.0
    assert inception_score(logits) == pytest.approx(5, rel=0.05)
    assert inception_score(logits[:5]) == pytest.approx(1)  # each part has one picture


def test_reading_can_be_stopped(inception: Inception) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        inception.read(dirty_squares(3, seed=0).images, stop)
