"""A dataset: a named set of images, labels and captions; its versions never change."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from shared.ids import Name


class Shard(BaseModel):
    """One Parquet file with columns `image` (bytes: raw uint8, HxWxC), `label` (int32, -1 = none)
    and `text` (string or null)."""

    key: str
    bytes: int
    sha256: str
    num_images: int


class Refusal(BaseModel):
    """A file of the upload that is not in the dataset, and why."""

    path: str
    reason: str


class DatasetManifest(BaseModel):
    """Written after the shards that it names. `version` is the digest of the content."""

    name: Name
    version: str
    size: int
    """Height and width in pixels: images are square."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    num_images: int
    num_classes: int
    """0 when the images carry no labels."""
    class_names: list[str] = Field(default_factory=list)
    class_counts: list[int] = Field(default_factory=list)
    has_captions: bool = False
    shards: list[Shard]
    num_duplicates: int = 0
    num_refused: int = 0
    refused: list[Refusal] = Field(default_factory=list)
    """The first 1,000 refusals; `num_refused` counts all."""
    source: str = ""
    """Where the images come from, in words: an upload's name, a package, an address."""
    created_at: datetime
