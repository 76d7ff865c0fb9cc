"""What an evaluation says of a published model."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from shared.ids import JobId, Name


class Score(BaseModel):
    """One measure of the model's pictures, between the same measure of two other sets."""

    value: float
    floor: float
    """Of real training pictures in their place: better is hardly to be had."""
    ceiling: float
    """Of uniform noise in their place: so bad is having learned nothing."""


class YardstickCard(BaseModel):
    """The classifier in whose features sets were compared."""

    seed: int
    dataset: Name
    dataset_version: str
    """What it was trained on: the model's own training pictures."""
    num_classes: int
    """4 on a dataset without classes: it tells quarter turns."""
    accuracy: float
    """On the reference pictures, in [0, 1]."""


class Evaluation(BaseModel):
    """`scores/{job}.json` beside a model's version.

    `scores` by name: `frechet_distance`, `kernel_distance` (less is better, 0 is best); `recall`,
    `coverage`, and only beside them `precision`, `density`; `nearest_ratio`, how far the pictures
    are from the nearest training picture, over how far the reference pictures are (1: as fresh as
    those; 0: copies); on a dataset with classes `class_entropy` (of the yardstick's votes, over the
    most that it could be); of a model with classes `label_agreement` (the vote is the class asked
    for) and `classification_accuracy` (on the reference, of a classifier trained on the model's
    pictures alone; Ravuri 2019). In the features of Inception-v3 instead
    `inception_frechet_distance`, `inception_kernel_distance` and `inception_score` (more is
    better). None is called FID: whether the weights are the official ones, only who made the file
    can know.
    """

    job_id: JobId
    model: Name
    version: int
    dataset: Name
    dataset_version: str
    """The reference pictures."""
    held_out: bool
    """Whether the reference is another dataset than the model was trained on. If not, its pictures
    were seen in training: one half of them is the reference, the other stands for training."""
    n: int
    """Pictures of the model, and at most of the reference."""
    num_reference: int
    num_neighbours: int
    """Pictures of each set behind recall, coverage, precision and density; 0: nobody asked."""
    seed: int
    features: str
    """Of which network the features are in which sets were compared, and the SHA-256 of its
    weights: `yardstick:...` or `inception:...`. Scores in different features do not compare."""
    yardstick: YardstickCard | None
    """If it was one."""
    scores: dict[str, Score]
    created_at: datetime
