"""The networks: shapes, group statistics, and samples that depend on nothing but their counter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shared.errors import CorruptObject
from shared.networks import snapshot
from shared.networks.attention import SelfAttention
from shared.networks.catalog import GENERATORS, build_discriminator, build_generator
from shared.networks.generators import Generator, stage_widths
from shared.networks.layers import BatchNorm, UpsamplingConv2d, minibatch_std
from shared.networks.sampling import latents, sample, to_uint8
from shared.networks.spectral import fold_spectral_norms, normalise_spectrally
from shared.networks.standing import take_standing_statistics
from shared.schemas.models import SnapshotConfig, Task
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig
from tests.forgers import forger


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


def test_an_upsampling_convolution_is_one_of_doubled_pictures() -> None:
    layer = UpsamplingConv2d(3, 5)
    ours, theirs = (torch.randn(2, 3, 6, 7).requires_grad_() for _ in range(2))
    theirs.data = ours.data.clone()
    found = layer(ours)
    expected = torch.nn.Conv2d.forward(layer, F.interpolate(theirs, scale_factor=2.0))
    assert torch.allclose(found, expected, atol=1e-5)
    weighed = torch.randn_like(found)
    by_us = torch.autograd.grad((found * weighed).sum(), (ours, layer.weight, layer.bias))
    by_torch = torch.autograd.grad((expected * weighed).sum(), (theirs, layer.weight, layer.bias))
    for a, b in zip(by_us, by_torch, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


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
    expected = layer.weight.detach() / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    network = torch.nn.Sequential(layer)
    normalise_spectrally(network)
    x = torch.randn(2, 3, 6, 6)
    for _ in range(200):
        network(x)
    before = network.state_dict()["0.u"].clone()
    y = network.eval()(x)
    assert torch.equal(network.state_dict()["0.u"], before)
    fold_spectral_norms(network)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert torch.allclose(network[0].weight, expected, atol=1e-4)
    assert torch.equal(network(x), y)


@pytest.mark.parametrize("norm", ["none", "batch", "spectral"])
def test_d_has_the_norm_that_was_asked_for(norm: str) -> None:
    D = build_discriminator(DiscriminatorConfig(size=32, width=4, norm=norm))
    names = set(D.state_dict())
    assert ("norms.1.scale" in names) == (norm == "batch")
    assert ("logit.u" in names) == (norm == "spectral")
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


@pytest.mark.parametrize("architecture", ["residual", "biggan", "dfgan"])
def test_g_draws_and_d_judges_by_text(architecture: str) -> None:
    config = GeneratorConfig(architecture=architecture, size=16, width=8, z_dim=16, text_dim=6)
    G = forger(config)
    D = build_discriminator(
        DiscriminatorConfig(architecture=architecture, size=16, width=8, text_dim=6)
    )
    z, c = torch.randn(4, 16), torch.randn(4, 6)
    images = G(z, c)
    assert not torch.allclose(G(z, c.flip(0)), images)
    logits = D(images, c)
    assert not torch.allclose(D(images, c.flip(0)), logits)
    # A logit is linear in the text: what is left without one is the picture's own.
    own = D(images, torch.zeros_like(c))
    assert torch.allclose(D(images, 2 * c) - own, 2 * (logits - own), atol=1e-4)


def test_fusion_begins_as_no_more_than_its_activations() -> None:
    G = build_generator(GeneratorConfig(architecture="dfgan", size=16, width=8, text_dim=6))
    block = G.blocks[0].fuse_in
    x, condition = torch.randn(2, 16, 4, 4).abs(), torch.randn(2, 64 + 64)
    assert torch.equal(block(x, condition), x)


def test_without_a_label_the_captions_or_the_classes_take_turns() -> None:
    G = forger(GeneratorConfig(architecture="dfgan", size=16, width=8, z_dim=16, text_dim=6))
    drawn = sample(G, seed=1, indices=[3, 203])
    with torch.no_grad():
        expected = to_uint8(G(latents(1, [3, 203], 16), G.examples[[3, 3]]))
    assert np.array_equal(drawn, expected)
    H = biggan().eval()
    ask = {"seed": 1, "indices": range(5)}
    assert np.array_equal(sample(H, **ask), sample(H, **ask, labels=[0, 1, 2, 0, 1]))


def biggan(**values: Any) -> Generator:
    config = {"size": 16, "width": 8, "num_classes": 3, "norm_group": 8} | values
    return build_generator(GeneratorConfig(architecture="biggan", **config))


def test_biggan_cuts_z_into_chunks_for_its_blocks() -> None:
    G = biggan(z_dim=20).eval()
    assert G.chunks == [8, 6, 6]
    z, c = torch.randn(4, 20), torch.tensor([0, 1, 2, 0])
    smallest: list[torch.Tensor] = []
    G.linear.register_forward_hook(lambda *passed: smallest.append(passed[2]))
    images = G(z, c)
    other = z.clone()
    other[:, 14:] += 1  # the last block's
    assert not torch.allclose(G(other, c), images)
    assert torch.equal(smallest[0], smallest[1])
    assert not torch.allclose(G(z, (c + 1) % 3), images)


def test_attention_starts_as_if_it_were_not_there() -> None:
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(attention(x), x)
    torch.nn.init.ones_(attention.gamma)
    moved = x.roll(2, dims=3)  # attention does not know where a place is
    assert torch.allclose(attention(moved), attention(x).roll(2, dims=3), atol=1e-5)


def test_standing_statistics_are_those_of_its_own_pictures() -> None:
    G = biggan().eval()
    state = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    take_standing_statistics(G, seed=5, num_batches=4)
    changed = {name for name, t in G.state_dict().items() if not torch.equal(t, state[name])}
    assert changed == {name for name in state if ".running_" in name or name.startswith("norm.run")}
    once = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    take_standing_statistics(G, seed=5, num_batches=4)
    assert all(torch.equal(tensor, once[name]) for name, tensor in G.state_dict().items())
    c = torch.arange(32) % 3
    first: list[torch.Tensor] = []
    G.blocks[0].norm_in.register_forward_hook(lambda *passed: first.append(passed[1][0]))
    G(latents(5, range(32), 64), c)
    assert torch.allclose(G.blocks[0].norm_in.running_mean, first[0].mean((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"attention": 4}, "there are: 8"),
        ({"attention": 8, "architecture": "dcgan"}, "there are: none"),
        ({"z_dim": 2}, "cannot be cut into 3 chunks"),
    ],
)
def test_a_biggan_that_cannot_be_is_refused(values: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GeneratorConfig(**{"architecture": "biggan", "size": 16} | values)


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
