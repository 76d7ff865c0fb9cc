"""From a configuration to its network: the one place that knows every architecture.

Training and serving both build from here, so what is served is what was trained.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from shared.networks.discriminators import DCGANDiscriminator
from shared.networks.generators import DCGANGenerator, Generator
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig

GENERATORS: dict[str, type[DCGANGenerator]] = {"dcgan": DCGANGenerator}
DISCRIMINATORS: dict[str, type[DCGANDiscriminator]] = {"dcgan": DCGANDiscriminator}


Network = TypeVar("Network", bound=nn.Module)


def build_generator(config: GeneratorConfig) -> Generator:
    """A fresh generator, channels last. Its initial weights come from torch's global state."""
    return channels_last(GENERATORS[config.architecture](config))


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """A fresh discriminator, channels last. Its initial weights come from torch's global state."""
    return channels_last(DISCRIMINATORS[config.architecture](config))


def channels_last(network: Network) -> Network:
    """The network with its convolutions' weights laid out for channels-last pictures."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
