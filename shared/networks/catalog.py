"""From a configuration to its network: the one place that knows every architecture.

Training and serving both build from here, so what is served is what was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from shared.networks.biggan import BigGANDiscriminator, BigGANGenerator
from shared.networks.dfgan import DFGANDiscriminator, DFGANGenerator
from shared.networks.discriminators import DCGANDiscriminator, Discriminator
from shared.networks.generators import DCGANGenerator, Generator
from shared.networks.residual import ResidualDiscriminator, ResidualGenerator
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig

GENERATORS: dict[str, Callable[[GeneratorConfig], Generator]] = {
    "dcgan": DCGANGenerator,
    "residual": ResidualGenerator,
    "biggan": BigGANGenerator,
    "dfgan": DFGANGenerator,
}
DISCRIMINATORS: dict[str, Callable[[DiscriminatorConfig], Discriminator]] = {
    "dcgan": DCGANDiscriminator,
    "residual": ResidualDiscriminator,
    "biggan": BigGANDiscriminator,
    "dfgan": DFGANDiscriminator,
}

Network = TypeVar("Network", bound=nn.Module)


def build_generator(config: GeneratorConfig) -> Generator:
    """A fresh generator, channels last. Its initial weights come from torch's global state."""
    return channels_last(GENERATORS[config.architecture](config))


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """A fresh discriminator, channels last. Its initial weights come from torch's global state."""
    return channels_last(DISCRIMINATORS[config.architecture](config))


def channels_last(network: Network) -> Network:
    """The network with its convolutions' weights laid out for channels-last pictures."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
