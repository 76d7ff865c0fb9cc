"""The replay repository: what is in it, at a checkpoint."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ReplayShard(BaseModel):
    """The slots of one rank, as safetensors: `images` uint8 [n, C, H, W] (slot order), `labels`
    int64 [n], `born` int64 [n] (the round in which each was made), `variance` float32 [n] (the
    average per-pixel variance of the set it was made in)."""

    key: str
    bytes: int
    sha256: str
    num_images: int


class ReplayManifest(BaseModel):
    """The whole repository after `round`: the shards in slot order, and a picture of it."""

    round: int
    kimg: float
    capacity: int
    num_images: int
    ages: dict[int, int] = Field(default_factory=dict)
    """Age in rounds -> number of images that old."""
    shards: list[ReplayShard]
    picture_key: str
