"""Untrained generators, published to a registry for the tests and benchmarks of serving."""

from __future__ import annotations

import torch

from shared.clock import now
from shared.networks import snapshot
from shared.networks.catalog import build_generator
from shared.networks.generators import Generator
from shared.schemas.models import GENERATOR_TASKS, ModelCard, SnapshotConfig, Task
from shared.schemas.networks import GeneratorConfig
from shared.storage.registry import Registry
from shared.text import TEXT_DIM

CLASS_NAMES = ["shirt", "bag", "boot"]

SMALL = GeneratorConfig(size=16, width=8, z_dim=16, num_classes=len(CLASS_NAMES))
PLAIN = GeneratorConfig(size=16, width=8, z_dim=16)
WRITER = GeneratorConfig(architecture="dfgan", size=16, width=8, z_dim=16, text_dim=TEXT_DIM)
BENCH = GeneratorConfig(size=32, channels=1, num_classes=10)


UNTRAINED = {"norms": 0.5, "narrow": 0.5, "gamma": 0.5, "affines": 0.05}
"""Parts that begin the same for each class, or at 0: untrained they would do nothing. How large
their weights are drawn."""


def forger(config: GeneratorConfig, *, seed: int = 0) -> Generator:
    """A generator in eval mode whose weights `seed` draws; its classes differ."""
    torch.manual_seed(seed)
    network = build_generator(config)
    for name, parameter in network.named_parameters():
        for part in UNTRAINED.keys() & set(name.split(".")):
            torch.nn.init.normal_(parameter, 0.0, UNTRAINED[part])
    if config.text_dim:
        torch.nn.init.normal_(network.examples)
    network.eval().requires_grad_(requires_grad=False)
    return network


def bench_forger() -> Generator:
    """The generator that benchmarks measure."""
    return forger(BENCH)


def publish_forger(registry: Registry, name: str, *, seed: int = 0) -> ModelCard:
    """Publish a generator of 16 px pictures of three classes, made by job `job-{name}-{seed}`."""
    return _publish(registry, name, SMALL, CLASS_NAMES, seed)


def publish_plain_forger(registry: Registry, name: str) -> ModelCard:
    """Publish a generator of 16 px pictures without classes."""
    return _publish(registry, name, PLAIN, [], 0)


def publish_garments(registry: Registry, name: str, class_names: list[str]) -> ModelCard:
    """Publish a generator of 32 px pictures of these ten classes."""
    return _publish(registry, name, BENCH, class_names, 0)


def publish_text_forger(registry: Registry, name: str, *, encoder_sha256: str) -> ModelCard:
    """Publish a generator of 16 px pictures of what a prompt says."""
    return _publish(registry, name, WRITER, [], 0, encoder_sha256)


def publish_bench_forger(registry: Registry, name: str) -> ModelCard:
    """Publish `bench_forger`."""
    return _publish(registry, name, BENCH, [], 0)


def _publish(
    registry: Registry,
    name: str,
    generator: GeneratorConfig,
    class_names: list[str],
    seed: int,
    encoder_sha256: str | None = None,
) -> ModelCard:
    network = forger(generator, seed=seed)
    config = SnapshotConfig(
        generator=generator,
        class_names=class_names,
        text_encoder_sha256=encoder_sha256,
        tasks=GENERATOR_TASKS if encoder_sha256 is None else [Task.GENERATE],
    )
    card = ModelCard(
        model=name,
        version=0,
        job_id=f"job-{name}-{seed}",
        attempt=1,
        recipe="gan",
        preset="modern-conditional",
        dataset="garments",
        dataset_version="v",
        kimg=1.0,
        seed=seed,
        tasks=config.tasks,
        class_names=class_names,
        takes_prompt=encoder_sha256 is not None,
        size=generator.size,
        channels=generator.channels,
        num_parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256="",
        weights_bytes=0,
        config_sha256="",
        created_at=now(),
    )
    return registry.publish(card, snapshot.to_bytes(network), config)
