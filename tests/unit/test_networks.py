"""The networks: shapes, group statistics, and samples that depend on nothing but their counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.errors import CorruptObject
from shared.networks import snapshot
from shared.networks.catalog import GENERATORS, build_discriminator, build_generator
from shared.networks.generators import stage_widths
from shared.networks.layers import BatchNorm, minibatch_std
from shared.networks.sampling import latents, sample
from shared.networks.spectral import fold_spectral_norms, normalise_spectrally
from shared.schemas.models import SnapshotConfig, Task
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig


@pytest.mark.parametrize("size", [8, 28, 32, 48, 64, 96, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", GENERATORS)
def test_g_makes_what_d_reads(architecture: str, size: int, channels: int) -> None:
    ask = {"architecture": architecture, "size": size, "channels": channels}
    G = build_generator(GeneratorConfig(**ask, width=4, num_classes=3, norm_group=4))
    D = build_discriminator(DiscriminatorConfig(**ask, width=4, num_classes=3))
    c = torch.tensor([0, 1, 2, 0])
    images = G(torch.randn(4, 64), c)
    assert images.shape == (4, channels, size, size)
    assert images.abs().max() <= 1
    assert D(images, c).shape == (4,)


def test_a_side_that_cannot_be_doubled_to_is_refused() -> None:
    with pytest.raises(ValueError, match="size 100 is not"):
        stage_widths(99 + 1, 16, 512)


def test_batch_norm_of_one_group_is_torchs() -> None:
    ours, theirs = BatchNorm(5, group=32), torch.nn.BatchNorm2d(5)
    x = torch.randn(32, 5, 4, 4) * 3 + 1
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    ours.update_running(ours.statistics)
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-6)
    # torch's running variance is the unbiased one.
    assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-2)


def test_batch_norm_by_groups_is_the_groups_apart() -> None:
    norm = BatchNorm(5, group=8)
    x = torch.randn(32, 5, 4, 4)
    together = norm(x)
    apart = torch.cat([norm(part) for part in x.split(8)])
    assert torch.equal(together, apart)


def test_a_spectral_norm_finds_the_largest_singular_value() -> None:
    layer = torch.nn.Conv2d(3, 8, 3)
    torch.nn.init.normal_(layer.weight)
    network = torch.nn.Sequential(layer)
    expected = layer.weight / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    normalise_spectrally(network)
    for _ in range(100):
        network(torch.zeros(1, 3, 4, 4))
    assert torch.allclose(layer.weight, expected, atol=1e-5)
    before = network.state_dict()["0.parametrizations.weight.0.u"].clone()
    network.eval()(torch.zeros(1, 3, 4, 4))
    assert torch.equal(network.state_dict()["0.parametrizations.weight.0.u"], before)
    normalised = layer.weight.detach().clone()
    fold_spectral_norms(network)
    assert list(network.state_dict()) == ["0.bias", "0.weight"]
    assert torch.equal(layer.weight, normalised)


@pytest.mark.parametrize("norm", ["none", "batch", "spectral"])
def test_d_has_the_norm_that_was_asked_for(norm: str) -> None:
    D = build_discriminator(DiscriminatorConfig(size=32, width=4, norm=norm))
    names = set(D.state_dict())
    assert ("norms.1.scale" in names) == (norm == "batch")
    assert ("logit.parametrizations.weight.0.u" in names) == (norm == "spectral")
    assert D(torch.randn(64, 1, 32, 32)).shape == (64,)


def test_a_pack_has_one_logit() -> None:
    D = build_discriminator(DiscriminatorConfig(size=16, width=4, pac=2))
    x = torch.randn(8, 1, 16, 16)
    assert D(x).shape == (4,)
    assert torch.allclose(D(x)[2:], D(x[4:]), atol=1e-6)


def test_a_residual_network_begins_without_its_blocks() -> None:
    G = build_generator(GeneratorConfig(architecture="residual", size=16, width=8))
    x = torch.randn(2, G.stages[0][0].narrow.out_channels, 4, 4)
    assert torch.equal(G.stages[0](x), x)


def test_minibatch_std_is_that_of_neighbours() -> None:
    h = torch.randn(16, 6)
    std = minibatch_std(h, 8)
    expected = (h[8:].var(0, unbiased=False) + 1e-8).sqrt().mean()
    assert torch.allclose(std[8:], expected.expand(8, 1))
    assert torch.equal(minibatch_std(h[8:], 8), std[8:])


def test_a_latent_depends_on_seed_and_index_only() -> None:
    many = latents(7, range(10), 64)
    assert torch.equal(latents(7, [3], 64)[0], many[3])
    assert not torch.equal(latents(8, [3], 64)[0], many[3])
    flat = latents(7, range(2000), 64).flatten()
    assert flat.mean().abs() < 0.01
    assert flat.std() == pytest.approx(1, abs=0.01)


def test_truncation_bounds_each_entry() -> None:
    assert latents(1, range(100), 64, truncation=0.5).abs().max() <= 1.0


def test_a_snapshot_gives_the_same_pictures() -> None:
    G = build_generator(GeneratorConfig(size=16, width=8, num_classes=2)).eval()
    config = SnapshotConfig(generator=G.config, tasks=[Task.GENERATE])
    loaded = snapshot.load(snapshot.to_bytes(G), config)
    ask = {"seed": 3, "indices": range(4), "labels": [0, 1, 0, 1]}
    assert np.array_equal(sample(G, **ask), sample(loaded, **ask))


@pytest.mark.parametrize("weights", [b"", b"not safetensors", b"\xff" * 64])
def test_weights_that_are_no_weights_are_refused(weights: bytes) -> None:
    config = SnapshotConfig(generator=GeneratorConfig(size=16, width=8), tasks=[Task.GENERATE])
    with pytest.raises(CorruptObject):
        snapshot.load(weights, config)


def test_weights_of_another_network_are_refused() -> None:
    other = build_generator(GeneratorConfig(size=32, width=8))
    config = SnapshotConfig(generator=GeneratorConfig(size=16, width=8), tasks=[Task.GENERATE])
    with pytest.raises(CorruptObject, match="do not fit"):
        snapshot.load(snapshot.to_bytes(other), config)
