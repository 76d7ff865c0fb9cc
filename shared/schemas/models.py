"""What is published and served: a snapshot (weights and configuration), its card, its aliases."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from shared.ids import JobId, Name
from shared.schemas.networks import GeneratorConfig


class Task(StrEnum):
    """What a served model can do."""

    GENERATE = "generate"
    ENCODE = "encode"
    INTERPOLATE = "interpolate"


GENERATOR_TASKS = [Task.GENERATE, Task.ENCODE, Task.INTERPOLATE]
"""Of every generator. Cards of before projection name the first only, and serving does all."""


class SnapshotConfig(BaseModel):
    """`config.json`: everything that serving needs to build the network and to name its classes."""

    schema_version: int = 1
    generator: GeneratorConfig
    class_names: list[str] = Field(default_factory=list)
    captions: list[str] = Field(default_factory=list)
    """With text: examples of what it was trained on, which take turns where no prompt is given."""
    text_encoder_sha256: str | None = None
    """Of the weights of the encoder whose vectors it knows; None: it takes no prompt."""
    tasks: list[Task]


class ModelCard(BaseModel):
    """`card.json`: where a version comes from. Written last: without it there is no version."""

    model: Name
    version: int
    job_id: JobId
    attempt: int
    recipe: str
    preset: str
    dataset: Name
    dataset_version: str
    kimg: float
    rescued: bool = False
    """Whether it is the newest healthy state of a run that collapsed."""
    seed: int
    tasks: list[Task]
    class_names: list[str] = Field(default_factory=list)
    takes_prompt: bool = False
    """Whether it draws what a text says."""
    size: int
    channels: int
    num_parameters: int
    metrics: dict[str, float] = Field(default_factory=dict)
    weights_sha256: str
    weights_bytes: int
    config_sha256: str
    created_at: datetime


class AliasMove(BaseModel):
    """One entry of an alias's history."""

    version: int
    by: str
    at: datetime


class Alias(BaseModel):
    """A movable pointer to a version. `history` is oldest first; the last entry is the present."""

    alias: Name
    version: int
    history: list[AliasMove] = Field(default_factory=list)


class ModelSummary(BaseModel):
    """A model as lists show it."""

    name: Name
    versions: list[int]
    aliases: dict[str, int]
    latest: ModelCard | None = None
