"""A rank's whole training: read the dataset, train the recipe, publish the result.

Ranks meet only in their process group. The first one reports, writes checkpoints and publishes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import reduce

import structlog

from shared import clock, tracing
from shared.networks import snapshot
from shared.niceness import yield_to_requests
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import Outcome
from shared.schemas.models import GENERATOR_TASKS, ModelCard, SnapshotConfig, Task
from shared.schemas.recipes import Change, GanConfig
from shared.schemas.specs import TrainSpec
from shared.storage import datasets, documents
from shared.storage.registry import Registry
from shared.storage.runs import RunResult
from workers.evaluation.progress import ProgressScore
from workers.jobs.captions import grid_captions, with_captions
from workers.jobs.context import AttemptContext, End, StopReason, outcome_of
from workers.jobs.reporting import RunReporter
from workers.jobs.yardsticks import find_yardstick
from workers.recipes.gan import GRID_COLUMNS, Gan
from workers.training import data
from workers.training.checkpoints import CheckpointStore
from workers.training.data import TrainingData
from workers.training.loop import deterministic_cpu
from workers.training.ranks import Ranks
from workers.training.recovery import Hopeless, train_and_recover

log = structlog.get_logger()


def train_rank(context: AttemptContext, ranks: Ranks) -> End:
    """This rank's whole training; on the first rank also its reports and the publication."""
    deterministic_cpu()
    yield_to_requests()
    spec = TrainSpec.model_validate(context.job.spec)

    # Read the dataset and the configuration.
    dataset = datasets.manifest(context.store, spec.dataset, spec.dataset_version)
    config = spec.resolved(dataset)
    pictures = data.load(context.store, dataset)
    if config.generator.text_dim:
        folder = context.settings.text_encoder
        pictures = with_captions(pictures, config.generator.text_dim, folder)

    def make(changes: Sequence[Change]) -> Gan:
        return Gan(reduce(GanConfig.changed, changes, config), pictures, ranks)

    # Go on from the newest checkpoint, if there is one.
    checkpoints = CheckpointStore(context.store, context.job.id, context.token)
    checkpoint = checkpoints.load_newest()
    if checkpoint:
        log.info("going on from a checkpoint", kimg=checkpoint.kimg)

    # Train.
    reporter = RunReporter(
        context,
        checkpoints,
        of=config.kimg,
        columns=GRID_COLUMNS,
        captions=grid_captions(pictures.captions),
    )
    reason: StopReason | None = None
    collapsed: Hopeless | None = None

    def should_stop() -> bool:
        nonlocal reason
        reason = context.should_stop()
        return reason is not None

    try:
        recipe, complete = train_and_recover(
            make,
            ranks,
            start=checkpoint,
            should_stop=should_stop,
            report=reporter,
            score=_score(context, config, dataset, pictures, ranks),
        )
    except Hopeless as hopeless:
        collapsed = hopeless
    finally:
        reporter.close()

    # Publish, or say why not.
    if not ranks.is_first:
        return End(Outcome.SUCCEEDED)
    if collapsed:
        return _rescued(context, spec, dataset, make, collapsed)
    if not complete:
        return End(outcome_of(reason))
    metrics, kimg = reporter.latest, config.kimg
    if best := checkpoints.load_best():
        assert best.score is not None
        limit = config.score.max_distance
        if limit is not None and best.score > limit:
            return End(
                Outcome.FAILED,
                error=f"the best state, at {best.kimg:.1f} kimg, has a Frechet distance of "
                f"{best.score:.3g}, above score.max_distance {limit:g}: nothing is published",
            )
        recipe = make(best.changes)
        recipe.load_state(best.networks, best.optimizers, best.replay)
        metrics, kimg = metrics | {"frechet_distance": best.score}, best.kimg
    card = _publish(context, spec, dataset, recipe, kimg=kimg, metrics=metrics)
    held = context.runs.write_result(
        context.job.id,
        RunResult(
            token=context.token,
            outcome=Outcome.SUCCEEDED,
            result={"model": card.model, "version": card.version},
            ended_at=clock.now(),
        ),
    )
    return End(Outcome.SUCCEEDED, result=held.result)


def _score(
    context: AttemptContext,
    config: GanConfig,
    dataset: DatasetManifest,
    pictures: TrainingData,
    ranks: Ranks,
) -> Callable[[Gan], float] | None:
    """What measures the run's states, if that is asked for."""
    if not config.score.n:
        return None
    log.info("finding the yardstick of the dataset; its first use trains it")
    yardstick, _ = find_yardstick(context.store, dataset, pictures, context.check_stop)
    score = ProgressScore(pictures, yardstick, n=config.score.n, seed=config.seed, ranks=ranks)
    return lambda recipe: score(recipe.settled())


def _rescued(
    context: AttemptContext,
    spec: TrainSpec,
    dataset: DatasetManifest,
    make: Callable[[Sequence[Change]], Gan],
    collapsed: Hopeless,
) -> End:
    """The end of a run that no recovery has saved: its newest healthy state is published."""
    healthy = collapsed.healthy
    if healthy is None:
        return End(Outcome.FAILED, error=f"{collapsed}; it never was healthy, nothing is published")
    recipe = make(healthy.changes)
    recipe.load_state(healthy.networks, healthy.optimizers, healthy.replay)
    card = _publish(context, spec, dataset, recipe, kimg=healthy.kimg, metrics={}, rescued=True)
    return End(
        Outcome.FAILED,
        error=f"{collapsed}; its healthy state of {healthy.kimg:.1f} kimg is published as "
        f"{card.model}@{card.version}",
    )


def _publish(
    context: AttemptContext,
    spec: TrainSpec,
    dataset: DatasetManifest,
    recipe: Gan,
    *,
    kimg: float,
    metrics: dict[str, float],
    rescued: bool = False,
) -> ModelCard:
    """Publish G_ema as the next version of the model."""
    config = recipe.config
    generator = recipe.settled()
    weights = snapshot.to_bytes(generator)
    description = SnapshotConfig(
        generator=config.generator,
        class_names=dataset.class_names if config.generator.num_classes else [],
        captions=recipe.captions.examples if recipe.captions else [],
        text_encoder_sha256=recipe.captions.encoder_sha256 if recipe.captions else None,
        tasks=[Task.GENERATE] if recipe.captions else GENERATOR_TASKS,
    )
    with tracing.span("publish", model=spec.model):
        return Registry(context.store).publish(
            ModelCard(
                model=spec.model,
                version=0,
                job_id=context.job.id,
                attempt=context.token,
                recipe=config.recipe,
                preset=config.preset,
                dataset=dataset.name,
                dataset_version=dataset.version,
                kimg=kimg,
                rescued=rescued,
                seed=config.seed,
                tasks=description.tasks,
                class_names=description.class_names,
                takes_prompt=recipe.captions is not None,
                size=config.generator.size,
                channels=config.generator.channels,
                num_parameters=sum(p.numel() for p in generator.parameters()),
                metrics=metrics,
                weights_sha256=hashlib.sha256(weights).hexdigest(),
                weights_bytes=len(weights),
                config_sha256=hashlib.sha256(documents.dump(description)).hexdigest(),
                created_at=clock.now(),
            ),
            weights,
            description,
        )
