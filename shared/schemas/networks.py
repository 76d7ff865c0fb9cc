"""Configurations of networks. `shared.networks.catalog` builds from them; no torch here."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_SIZE = 256


def base_and_doublings(size: int) -> tuple[int, int]:
    """The side of the smallest map and how often it doubles: 28 = 7 * 2^2 gives (7, 2).

    Raises ValueError for a side that is not 4 to 7 times a power of two.
    """
    base, doublings = size, 0
    while base % 2 == 0 and base > 7:
        base //= 2
        doublings += 1
    if not 4 <= base <= 7:
        raise ValueError(f"size {size} is not 4, 5, 6 or 7 times a power of two")
    return base, doublings


def _doubled(size: int) -> int:
    base_and_doublings(size)
    return size


Side = Annotated[int, Field(ge=8, le=MAX_SIZE), AfterValidator(_doubled)]
"""Height and width of what a network of doublings makes or sees."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Architecture = Literal["dcgan", "residual", "biggan", "dfgan"]
"""`dcgan`: convolutions that halve or double (Radford 2015). `residual`: residual blocks without
normalisation (R3GAN, Huang 2024). `biggan`: z in chunks, shared class embedding, spectral norm in G
(Brock 2018). `dfgan`: residual blocks that z and the condition scale and shift (Tao 2020)."""


def check_attention(architecture: Architecture, size: int, attention: int) -> None:
    """Raises ValueError for attention at a side that the networks' maps do not have."""
    base, doublings = base_and_doublings(size)
    sides = [base * 2**k for k in range(1, doublings)] if architecture == "biggan" else []
    if attention and attention not in sides:
        there = ", ".join(map(str, sides)) or "none"
        raise ValueError(f"attention {attention} is no side of {architecture}; there are: {there}")


def check_condition(num_classes: int, text_dim: int) -> None:
    """Raises ValueError for classes and text at once."""
    if num_classes and text_dim:
        raise ValueError(f"num_classes {num_classes} and text_dim {text_dim}: one must be 0")


class GeneratorConfig(Frozen):
    """G: z (and a class) in, picture out: linear to the smallest map, then doublings of the side.

    `size` = base * 2^k with a base of 4 to 7 (28 = 7*4, 32 = 4*8, 64 = 4*16). `width` is the number
    of channels of the last hidden layer; each layer towards the input has twice as many, up to
    `max_width`.
    """

    architecture: Architecture = "dcgan"
    size: Side = 32
    channels: Literal[1, 3] = 1
    z_dim: int = Field(64, ge=1, le=1024)
    width: int = Field(16, ge=4, le=512)
    max_width: int = Field(512, ge=4, le=2048)
    num_classes: int = Field(0, ge=0, le=10_000)
    """With classes, dcgan and biggan scale and shift what is normalised per class (conditional
    batch norm); residual has them embedded beside z."""
    text_dim: int = Field(0, ge=0, le=4096)
    """Numbers of a sentence's vector, in place of classes, not in dcgan; 0: no text."""
    class_dim: int = Field(64, ge=1, le=1024)
    """Numbers that a class or a sentence is embedded in, other than in dcgan."""
    norm_group: int = Field(32, ge=2, le=4096)
    """Images per group that batch norm takes its statistics over; a rank holds whole groups."""
    attention: int = Field(0, ge=0, le=MAX_SIZE)
    """Side of the map whose places attend to each other (Zhang 2018), biggan only; 0: none."""
    upsampling: Literal["transposed", "nearest"] = "transposed"
    """How dcgan doubles the side: by transposed convolutions (Radford 2015), or by convolutions of
    what nearest neighbours have doubled, which begin without a checkerboard (Odena 2016)."""
    init: Literal["orthogonal", "default", "normal"] = "orthogonal"
    """`normal` is N(0, 0.02), DCGAN's own; `default` is torch's."""

    @property
    def unit(self) -> int:
        """Images that a rank must hold together: whole groups, where there are norms."""
        return self.norm_group if self.has_norms else 1

    @property
    def has_norms(self) -> bool:
        """Whether pictures are normalised together."""
        return self.architecture in {"dcgan", "biggan"}

    @property
    def condition_dim(self) -> int:
        """Numbers that a condition is embedded in; 0 without conditions."""
        return self.class_dim if self.num_classes or self.text_dim else 0

    @model_validator(mode="after")
    def _consistent(self) -> GeneratorConfig:
        check_attention(self.architecture, self.size, self.attention)
        check_condition(self.num_classes, self.text_dim)
        if self.architecture == "dcgan" and self.text_dim:
            raise ValueError("architecture dcgan takes no text: its norms look classes up")
        if self.architecture == "biggan":
            _, doublings = base_and_doublings(self.size)
            if self.z_dim <= doublings:
                raise ValueError(f"z_dim {self.z_dim} cannot be cut into {doublings + 1} chunks")
        return self


class DiscriminatorConfig(Frozen):
    """D: picture in, one logit out; a mirror of G.

    With classes or text the logit is linear(h) + <embedding(c), h> / sqrt(dim) (projection,
    Miyato 2018; in biggan without the root).
    """

    architecture: Architecture = "dcgan"
    size: Side = 32
    channels: Literal[1, 3] = 1
    width: int = Field(16, ge=4, le=512)
    max_width: int = Field(512, ge=4, le=2048)
    hidden: int = Field(128, ge=0, le=4096)
    """Units of the linear layer before the logit; 0 leaves it out."""
    num_classes: int = Field(0, ge=0, le=10_000)
    text_dim: int = Field(0, ge=0, le=4096)
    """As in G."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Remedy 1: dropout with this probability after each activation, else after each map."""
    variance_input: bool = False
    """Remedy 3: the average per-pixel variance of an image's set is a further input."""
    minibatch_std_group: int = Field(0, ge=0, le=64)
    """Images per group whose standard deviation D sees (Karras 2017); 0 leaves it out. With `pac`
    they are packs."""
    pac: int = Field(1, ge=1, le=8)
    """Remedy: so many neighbours are stacked in channels and judged by one logit, so that D sees
    when they are alike (PacGAN, Lin 2018). Without conditions only: a pack would have to share
    one."""
    attention: int = Field(0, ge=0, le=MAX_SIZE)
    """As in G."""
    norm: Literal["none", "batch", "spectral"] = "none"
    """`batch`: BatchNorm after each convolution but the first (Radford 2015), dcgan only.
    `spectral`: spectral normalisation of all layers (Miyato 2018), not in residual."""
    norm_group: int = Field(32, ge=2, le=4096)
    """Images (with `pac`: packs) per group that batch norm takes its statistics over."""
    init: Literal["orthogonal", "default", "normal"] = "orthogonal"

    @property
    def unit(self) -> int:
        """Images that a rank must hold together: whole packs in whole groups."""
        norm_group = self.norm_group if self.norm == "batch" else 1
        return self.pac * math.lcm(self.minibatch_std_group or 1, norm_group)

    @model_validator(mode="after")
    def _consistent(self) -> DiscriminatorConfig:
        check_condition(self.num_classes, self.text_dim)
        if self.pac > 1 and self.num_classes:
            raise ValueError(f"pac {self.pac} needs num_classes 0: a pack has no class")
        if self.pac > 1 and self.text_dim:
            raise ValueError(f"pac {self.pac} needs text_dim 0: a pack has no text")
        if self.norm not in NORMS[self.architecture]:
            raise ValueError(f"architecture {self.architecture} has no norm {self.norm}")
        check_attention(self.architecture, self.size, self.attention)
        return self


NORMS: dict[Architecture, set[str]] = {
    "dcgan": {"none", "batch", "spectral"},
    "residual": {"none"},
    "biggan": {"none", "spectral"},
    "dfgan": {"none"},
}
"""The norms that each D may have."""
