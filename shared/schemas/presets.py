"""Presets: functions that return a full recipe configuration for a dataset.

The sources of each are in its docstring; measured time and quality are in docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from pydantic import ValidationError

from shared.errors import FieldError, InvalidInput
from shared.schemas.networks import DiscriminatorConfig, GeneratorConfig, base_and_doublings
from shared.schemas.recipes import (
    AugmentConfig,
    BootstrapConfig,
    GanConfig,
    GuideConfig,
    OptimizerConfig,
    PenaltyConfig,
    ReplayConfig,
)
from shared.text import TEXT_DIM

FEW_IMAGES = 10_000
FOR_FEW = AugmentConfig(p=0.3, target=0.6, adapt_kimg=100.0).model_dump()
"""What D sees of fewer images than that, in the presets AUGMENTED_IF_FEW: adaptively augmented ones
(ADA, Karras 2020). Measured in docs/presets.md."""
AUGMENTED_IF_FEW = ("modern", "modern-conditional")


def lecture(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """The lecture's GAN, exactly as told: bootstrap on random images, a repository of 200 of which
    100 are kept at random each round, D on all 200 and on 200 reals, then G, z in, picture out.

    Remedies are off; switch them on by `discriminator.dropout`, `label_flip` and
    `discriminator.variance_input`. Classes are not used, as in the lecture.
    """
    del num_classes
    optimizer = OptimizerConfig(lr=1.5e-3, beta1=0.0, beta2=0.999)
    return GanConfig(
        preset="lecture",
        generator=GeneratorConfig(size=size, channels=channels, init="default", norm_group=50),
        discriminator=DiscriminatorConfig(size=size, channels=channels, hidden=0, init="default"),
        objective="non_saturating",
        num_generated=100,
        optimizer_g=optimizer,
        optimizer_d=optimizer,
        bootstrap=BootstrapConfig(max_steps=20),
        replay=ReplayConfig(capacity=200, num_new=100),
        ema_half_life_kimg=0,
    )


def dcgan(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """DCGAN (Radford 2015, sections 3 and 4): BatchNorm in both networks, reals and fakes apart in
    D, N(0, 0.02) at the start, Adam at 2e-4 with beta1 0.5, batches of 128. Here z is normal, not
    uniform, and the networks are narrower. Classes are not used."""
    del num_classes
    optimizer = OptimizerConfig(lr=2e-4, beta1=0.5, beta2=0.999)
    return GanConfig(
        preset="dcgan",
        generator=GeneratorConfig(
            size=size, channels=channels, z_dim=100, init="normal", norm_group=64
        ),
        discriminator=DiscriminatorConfig(
            size=size, channels=channels, hidden=0, init="normal", norm="batch", norm_group=64
        ),
        objective="non_saturating",
        num_generated=128,
        optimizer_g=optimizer,
        optimizer_d=optimizer,
        replay=ReplayConfig(enabled=False),
        ema_half_life_kimg=0,
    )


def biggan(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """BigGAN (Brock 2018) for two cores: hierarchical z, shared class embedding, spectral norm in
    both networks, self-attention (Zhang 2018), projection, hinge, two steps of D for one of G at
    two learning rates, orthogonal start and regularisation, standing statistics. The paper has 96
    channels for our 32, z of 120, batches of 2048 for our 64, an average of 0.9999 a step."""
    side = _attention_side(size)
    return GanConfig(
        preset="biggan",
        generator=GeneratorConfig(
            architecture="biggan",
            size=size,
            channels=channels,
            z_dim=80,
            width=32,
            num_classes=num_classes,
            attention=side,
        ),
        discriminator=DiscriminatorConfig(
            architecture="biggan",
            size=size,
            channels=channels,
            width=32,
            hidden=0,
            num_classes=num_classes,
            attention=side,
            norm="spectral",
        ),
        objective="hinge",
        num_generated=64,
        num_d_steps=2,
        optimizer_g=OptimizerConfig(lr=1e-4, beta1=0.0, beta2=0.999),
        optimizer_d=OptimizerConfig(lr=4e-4, beta1=0.0, beta2=0.999),
        penalties=PenaltyConfig(orthogonal_weight=1e-4),
        replay=ReplayConfig(enabled=False),
        ema_half_life_kimg=11.0,
        standing_batches=16,
    )


def _attention_side(size: int) -> int:
    """Half of the picture's side, where the paper has it at 128 px, but at most 64: each place
    attends to a quarter of them all. 0 where the networks have no such map."""
    base, doublings = base_and_doublings(size)
    return max((side for k in range(1, doublings) if (side := base * 2**k) <= 64), default=0)


def modern(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """Relativistic pairing loss with R1 and R2 (R3GAN, Huang 2024), EMA, minibatch standard
    deviation (Karras 2017), large steps on small batches. Classes are not used. The repository is
    off: with it, at equal steps, fewer pictures were of the class asked for (docs/presets.md)."""
    del num_classes
    return _modern("modern", size=size, channels=channels, num_classes=0, lr=1.5e-3, gamma=0.1)


def modern_conditional(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """`modern` with classes: conditional batch norm in G and a projection head in D
    (Miyato 2018). Its larger steps are for 32 px at most: at 64 px, augmented, G broke down under
    them (docs/presets.md)."""
    if num_classes == 0:
        raise InvalidInput("preset modern-conditional needs a dataset with labels; take modern")
    return _modern(
        "modern-conditional",
        size=size,
        channels=channels,
        num_classes=num_classes,
        lr=4e-3 if size <= 32 else 1.5e-3,
        gamma=0.1,
    )


def text_to_image(*, size: int, channels: int, num_classes: int) -> GanConfig:
    """DF-GAN (Tao 2020) on sentence vectors: z and the text modulate each block of G, D is trained
    on three pairs (real and its caption, fake and its caption, real and another's caption) by
    hinge, with the matching-aware penalty, lazily, differentiable augmentation (Zhao 2020),
    contrast between pictures and texts (XMC-GAN, Zhang 2021) and a guide (Xu 2018). Betas and z as
    in the paper, which has rates of 1e-4 for G and 4e-4 for D, for runs that are much longer, and
    batches of 32.
    Classes are not used."""
    del num_classes
    optimizer = OptimizerConfig(lr=1.2e-3, beta1=0.0, beta2=0.9, decay_from=0.5)
    return GanConfig(
        preset="text-to-image",
        generator=GeneratorConfig(
            architecture="dfgan",
            size=size,
            channels=channels,
            z_dim=100,
            text_dim=TEXT_DIM,
            class_dim=128,
        ),
        discriminator=DiscriminatorConfig(
            architecture="dfgan", size=size, channels=channels, hidden=256, text_dim=TEXT_DIM
        ),
        objective="hinge",
        num_generated=64,
        optimizer_g=optimizer,
        optimizer_d=optimizer,
        penalties=PenaltyConfig(matching_weight=2.0, every=4, contrast_weight=1.0),
        augment=AugmentConfig(p=0.5),
        guide=GuideConfig(weight=1.0),
        replay=ReplayConfig(enabled=False),
        ema_half_life_kimg=11.0,
    )


def _modern(
    preset: str, *, size: int, channels: int, num_classes: int, lr: float, gamma: float
) -> GanConfig:
    optimizer = OptimizerConfig(lr=lr, beta1=0.0, beta2=0.99, decay_from=0.5)
    return GanConfig(
        preset=preset,
        generator=GeneratorConfig(
            size=size,
            channels=channels,
            num_classes=num_classes,
            # Transposed ones drew a checkerboard at 64 px (docs/presets.md).
            upsampling="transposed" if size <= 32 else "nearest",
        ),
        discriminator=DiscriminatorConfig(
            size=size, channels=channels, num_classes=num_classes, minibatch_std_group=8
        ),
        objective="relativistic",
        num_generated=64,
        optimizer_g=optimizer,
        optimizer_d=optimizer,
        penalties=PenaltyConfig(r1_gamma=gamma, r2_gamma=gamma, every=8),
        replay=ReplayConfig(enabled=False, capacity=64, num_new=48),
        ema_half_life_kimg=11.0,
    )


PRESETS: dict[str, Callable[..., GanConfig]] = {
    "lecture": lecture,
    "dcgan": dcgan,
    "biggan": biggan,
    "modern": modern,
    "modern-conditional": modern_conditional,
    "text-to-image": text_to_image,
}


Scale = Literal["tiny", "small", "base"]

WIDTHS: dict[Scale, float] = {"tiny": 0.5, "small": 1, "base": 4}
"""What each scale makes of the widths of G and D: `small` is for two cores, `base` for a GPU."""


def resolve_preset(
    preset: str,
    *,
    scale: Scale = "small",
    size: int,
    channels: int,
    num_classes: int,
    num_images: int = FEW_IMAGES,
    has_captions: bool = False,
    overrides: dict[str, Any],
    workers: int = 1,
) -> GanConfig:
    """The preset's configuration for a dataset of so many images of `size` x `size` pixels, at a
    scale, with single values overridden.

    `overrides` is nested by the names of the resolved configuration, e.g.
    `{"optimizer_g": {"lr": 1e-3}, "kimg": 50}`.

    Raises:
        InvalidInput: no such preset, a value or name that the configuration does not know,
            batches that `workers` ranks cannot share, or text for a dataset without captions.
    """
    if preset not in PRESETS:
        raise InvalidInput(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    try:
        base = _scaled(preset, scale, size, channels, num_classes)
        if num_images < FEW_IMAGES and preset in AUGMENTED_IF_FEW:
            base = base | {"augment": FOR_FEW}
        config = GanConfig.model_validate(_merged(base, overrides))
        config.check_workers(workers)
    except ValidationError as error:
        raise InvalidInput(
            f"preset {preset} with these overrides is not valid",
            errors=[
                FieldError(
                    pointer="/spec/config/" + "/".join(str(part) for part in problem["loc"]),
                    detail=problem["msg"],
                )
                for problem in error.errors()
            ],
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"preset {preset} cannot run on {workers} workers: {error}",
            errors=[FieldError(pointer="/spec/workers", detail=str(error))],
        ) from error
    if config.generator.text_dim and not has_captions:
        raise InvalidInput(
            f"preset {preset} needs a dataset with captions: see docs/datasets.md",
            errors=[FieldError(pointer="/spec/dataset", detail="it has no captions")],
        )
    return config


@lru_cache(maxsize=128)  # nobody changes what it returns
def _scaled(
    preset: str, scale: Scale, size: int, channels: int, num_classes: int
) -> dict[str, Any]:
    config = PRESETS[preset](size=size, channels=channels, num_classes=num_classes)
    scaled = config.model_dump()
    for network in ("generator", "discriminator"):
        scaled[network]["width"] = int(scaled[network]["width"] * WIDTHS[scale])
    return scaled


def _merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        nested = merged.get(key)
        merged[key] = (
            _merged(nested, value)
            if isinstance(nested, dict) and isinstance(value, dict)
            else value
        )
    return merged
