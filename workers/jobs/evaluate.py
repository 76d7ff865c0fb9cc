"""An evaluate job: a published model's pictures against reference pictures, in the features of a
yardstick or of Inception.

    the model                      -> pictures             \
    the dataset it was trained on  -> yardstick, real pictures -> scores beside the model's version
    the spec's dataset             -> reference pictures   /

Everything is drawn from the spec's seed: the same job gives the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shared import clock
from shared.inception import find_inception
from shared.networks import snapshot
from shared.networks.generators import Generator
from shared.networks.sampling import sample
from shared.niceness import yield_to_requests
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import Outcome, Progress
from shared.schemas.scores import Evaluation, Score, YardstickCard
from shared.schemas.specs import EvaluateSpec
from shared.storage import datasets
from shared.storage.registry import Registry
from workers.evaluation.inception import Inception
from workers.evaluation.inception_weights import load_inception
from workers.evaluation.measures import NUM_NEIGHBOURS
from workers.evaluation.scoring import (
    classification_accuracy,
    inception_scores_of,
    num_batches,
    scores_of,
)
from workers.evaluation.yardstick import accuracy, num_steps, train_yardstick
from workers.jobs.context import AttemptContext, End
from workers.jobs.selection import load_fitting, order, taken
from workers.jobs.yardsticks import YARDSTICK_SEED, find_yardstick
from workers.training import data
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu

DRAWN_AT_ONCE = 250
MAX_LEARNED = 60_000
"""Pictures that the classifier of `classification_accuracy` learns from, at most."""


@dataclass(frozen=True)
class Case:
    """A model, all that it was trained on, and the two sets that stand for what it has seen and
    for what it is held against."""

    generator: Generator
    trained_on: DatasetManifest
    everything: TrainingData
    seen: TrainingData
    reference: TrainingData


@dataclass(frozen=True)
class Verdict:
    """What was found in the features of a network with these weights."""

    scores: dict[str, Score]
    sha256: str
    yardstick: YardstickCard | None = None
    num_neighbours: int = 0


def run(context: AttemptContext) -> End:
    """Do what the job's spec says. Raises what `evaluate` raises."""
    deterministic_cpu()
    yield_to_requests()
    return evaluate(context, EvaluateSpec.model_validate(context.job.spec))


def evaluate(context: AttemptContext, spec: EvaluateSpec) -> End:
    """Score the model of the spec; the result names it and gives each score.

    Raises:
        NotFound: the model, the reference, or the dataset that the model was trained on is gone.
        InvalidInput: the reference's pictures have another form than the model's; Inception is
            asked for, and its weights are not there or not what they should be.
    """
    inception = (
        load_inception(find_inception(context.settings.inception_weights))
        if spec.features == "inception"
        else None
    )

    # Read the model, what it was trained on, and what it is held against.
    registry = Registry(context.store)
    name, version = registry.resolve(spec.model)
    card = registry.card(name, version)
    generator = snapshot.load(*registry.snapshot(name, version))
    trained_on = datasets.manifest(context.store, card.dataset, card.dataset_version)
    manifest = datasets.manifest(context.store, spec.dataset, spec.dataset_version)
    everything = data.load(context.store, trained_on)
    held_out = (manifest.name, manifest.version) != (trained_on.name, trained_on.version)
    seen, reference = (
        (everything, load_fitting(context.store, manifest, like=trained_on))
        if held_out
        else _halves(everything, spec.seed)
    )
    reference = taken(reference, order(reference, spec.seed)[: spec.n])
    case = Case(generator, trained_on, everything, seen, reference)

    # Draw pictures and score them; keep the scores beside the model's version.
    verdict = (
        _by_inception(context, spec, case, *inception)
        if inception
        else _by_yardstick(context, spec, case)
    )
    features = f"{spec.features}:{verdict.sha256}"
    registry.add_evaluation(
        Evaluation(
            job_id=context.job.id,
            model=name,
            version=version,
            dataset=manifest.name,
            dataset_version=manifest.version,
            held_out=held_out,
            n=spec.n,
            num_reference=len(reference.images),
            num_neighbours=verdict.num_neighbours,
            seed=spec.seed,
            features=features,
            yardstick=verdict.yardstick,
            scores=verdict.scores,
            created_at=clock.now(),
        )
    )
    return End(
        Outcome.SUCCEEDED,
        result={
            "model": name,
            "version": version,
            "n": spec.n,
            "seed": spec.seed,
            "features": features,
            "scores": {key: score.model_dump() for key, score in verdict.scores.items()},
        },
    )


def _by_inception(
    context: AttemptContext, spec: EvaluateSpec, case: Case, inception: Inception, sha256: str
) -> Verdict:
    of = num_batches(spec.n, seen=case.seen, reference=case.reference)
    pictures, _ = draw(case.generator, spec.n, spec.seed, context.check_stop)
    scores = inception_scores_of(
        pictures,
        seen=case.seen,
        reference=case.reference,
        inception=inception,
        seed=spec.seed,
        on_batch=_counting(context, of=of),
    )
    return Verdict(scores, sha256)


def _by_yardstick(context: AttemptContext, spec: EvaluateSpec, case: Case) -> Verdict:
    generator, seen, reference = case.generator, case.seen, case.reference

    # Find or train the yardstick.
    num_learned = min(len(seen.images), MAX_LEARNED) if generator.config.num_classes else 0
    learned_steps = num_steps(num_learned) if num_learned else 0
    on_step = _counting(context, of=num_steps(len(case.everything.images)) + learned_steps)
    yardstick, sha256 = find_yardstick(context.store, case.trained_on, case.everything, on_step)

    # Draw the pictures and score them.
    pictures, labels = draw(generator, max(spec.n, num_learned), spec.seed, context.check_stop)
    scores = scores_of(
        pictures[: spec.n],
        None if labels is None else labels[: spec.n],
        seen=seen,
        reference=reference,
        yardstick=yardstick,
        seed=spec.seed,
    )
    if labels is not None and reference.labels is not None:
        drawn = TrainingData(pictures[:num_learned], labels[:num_learned], None)
        learned = train_yardstick(
            drawn, yardstick.num_classes, seed=YARDSTICK_SEED, on_step=on_step
        )
        scores["classification_accuracy"] = classification_accuracy(
            learned, yardstick=yardstick, reference=reference
        )
    card = YardstickCard(
        seed=YARDSTICK_SEED,
        dataset=case.trained_on.name,
        dataset_version=case.trained_on.version,
        num_classes=yardstick.num_classes,
        accuracy=accuracy(yardstick, reference),
    )
    num_neighbours = min(NUM_NEIGHBOURS, spec.n, len(reference.images))
    return Verdict(scores, sha256, card, num_neighbours)


def draw(
    generator: Generator, n: int, seed: int, on_batch: Callable[[], None]
) -> tuple[Tensor, Tensor | None]:
    """The first n pictures of a seed, uint8 [n, C, H, W], and their classes, which take turns."""
    num_classes = generator.config.num_classes
    labels = torch.arange(n) % num_classes if num_classes else None
    batches = []
    for start in range(0, n, DRAWN_AT_ONCE):
        on_batch()
        indices = range(start, min(start + DRAWN_AT_ONCE, n))
        classes = None if labels is None else labels[start : indices.stop].tolist()
        batches.append(
            torch.from_numpy(sample(generator, seed=seed, indices=indices, labels=classes))
        )
    return torch.cat(batches).permute(0, 3, 1, 2).contiguous(), labels


def _halves(pictures: TrainingData, seed: int) -> tuple[TrainingData, TrainingData]:
    """Two halves that share no picture: one stands for the training, the other is held out from
    nothing but the measures."""
    rows = order(pictures, seed)
    middle = len(rows) // 2
    return taken(pictures, rows[:middle]), taken(pictures, rows[middle:])


def _counting(context: AttemptContext, *, of: int) -> Callable[[], None]:
    """What to call before each of so many steps: stops them when asked, and tells how far it is."""
    done = 0

    def on_step() -> None:
        nonlocal done
        context.check_stop()
        done += 1
        context.progress(Progress(done=done, of=of))

    return on_step
